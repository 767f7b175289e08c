/* Coroutines that wait while they are changed. It reads commands, and answers each with one line. */
#include <coroutine>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

struct Series {
    struct promise_type {
        int value = 0;
        Series get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        std::suspend_always yield_value(int x) { value = x; return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
    std::coroutine_handle<promise_type> handle;
    int next() { handle.resume(); return handle.done() ? -1 : handle.promise().value; }
};
struct Pause {
    int n;
    bool await_ready() { return false; }
    void await_suspend(std::coroutine_handle<>) {}
    int await_resume() { return n; }
};
static std::string ended;
struct Witness { const char *name; ~Witness() { ended += name; } };
__attribute__((noinline)) static int scaled(int x) { return x * 10; }
__attribute__((noipa, noinline)) Series sums(int from) {
    Witness witness{"sums "};
    int sum = 0;
    for (int i = from; i < from + 100; i++) {
        sum += i;
        co_yield sum;
        sum += co_await Pause{0};
    }
}
__attribute__((noipa, noinline)) Series words(int from) {
    co_yield scaled(from);
    co_yield scaled(from + 1);
}
int main() {
    char line[80];
    Series kept = sums(1), other = words(1);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "next", 4)) printf("%d\n", kept.next());
        else if (!strncmp(line, "word", 4)) printf("%d\n", other.next());
        else if (!strncmp(line, "fresh", 5)) { Series s = sums(atoi(line + 5)); int first = s.next(); s.handle.destroy(); printf("%d\n", first); }
        else if (!strncmp(line, "end", 3)) { kept.handle.destroy(); printf("%s\n", ended.c_str()); }
        fflush(stdout);
    }
    return 0;
}
