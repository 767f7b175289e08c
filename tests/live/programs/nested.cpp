// Exceptions inside of exceptions, and a function that lets none out.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

struct Trace {
    const char *name;
    ~Trace() { std::printf("-%s ", name); }
};

__attribute__((noinline)) void inner(int x)
{
    Trace trace{"inner"};
    if (x > 1)
        throw std::runtime_error("inner 1");
}

__attribute__((noinline)) void outer(int x)
{
    Trace trace{"outer"};
    try {
        inner(x);
    } catch (...) {
        std::throw_with_nested(std::logic_error("outer 1"));
    }
}

std::string chain(const std::exception &error)
{
    std::string text = error.what();
    try {
        std::rethrow_if_nested(error);
    } catch (const std::exception &nested) {
        text += " < " + chain(nested);
    }
    return text;
}

__attribute__((noinline)) int firm(int x) noexcept
{
    return x + 1 + (std::getenv("NOBODY") != nullptr);
}

void tell_and_end()
{
    try {
        std::rethrow_exception(std::current_exception());
    } catch (const std::exception &error) {
        std::printf("ended by %s\n", chain(error).c_str());
    }
    std::fflush(stdout);
    std::abort();
}

int main()
{
    char line[80];
    setvbuf(stdout, nullptr, _IOLBF, 0);
    std::set_terminate(tell_and_end);
    while (std::fgets(line, sizeof line, stdin)) {
        int x = std::atoi(std::strchr(line, ' '));
        if (line[0] == 'f') {
            std::printf("%d\n", firm(x));
            continue;
        }
        try {
            outer(x);
            std::printf("calm\n");
        } catch (const std::exception &error) {
            std::printf("%s\n", chain(error).c_str());
        }
    }
}
