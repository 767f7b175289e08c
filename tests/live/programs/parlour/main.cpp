#include "errors.h"
#include "shapes.h"
#include <atomic>
#include <cstdio>
#include <cstring>
#include <sys/wait.h>
#include <thread>
#include <typeinfo>
#include <unistd.h>
// The compiler must not learn here what a function does: main is on the stack for ever and keeps its old code.
#define OPAQUE(f) ([] { decltype(&f) p = &f; __asm__ volatile("" : "+r"(p)); return p; }())
static std::atomic<long> turns{0};
static std::atomic<bool> over{false};
static std::atomic<bool> rest{false};
static std::atomic<int> busy{0};
static std::vector<std::unique_ptr<Shape>> shapes;
static std::vector<std::unique_ptr<Failure>> failures;
static void work() {
    for (int n = 0; !over; n++) {
        while (busy += 1, rest) {
            busy -= 1;
            usleep(100);
        }
        std::string found = OPAQUE(caught)(n % 6);
        if (found.empty() || OPAQUE(made)("circle", 3)->area() <= 0 || shapes[n % 2]->area() <= 0) abort();
        busy -= 1;
        turns += 1;
        if (n % 64 == 0) usleep(500);
    }
}
int main() {
    char line[80], word[20];
    int x;
    shapes.push_back(made("square", 4));
    shapes.push_back(made("circle", 2));
    failures.emplace_back(failure(1));
    failures.emplace_back(failure(2));
    std::thread one(work), two(work);
    while (fgets(line, sizeof line, stdin)) {
        x = 0;
        sscanf(line, "%19s %d", word, &x);
        std::string w = word;
        if (w == "left") printf("%d\n", OPAQUE(left_side)(x));
        else if (w == "right") printf("%d\n", OPAQUE(right_side)(x));
        else if (w == "mapped") printf("%d\n", OPAQUE(mapped)(x));
        else if (w == "boxed") printf("%d\n", OPAQUE(boxed)(x));
        else if (w == "odd") printf("%d\n", OPAQUE(odd)(x));
        else if (w == "caught") printf("%s\n", OPAQUE(caught)(x).c_str());
        else if (w == "again") printf("%s\n", OPAQUE(again)(x).c_str());
        else if (w == "kind") printf("%s %d\n", OPAQUE(kind)(failures[x].get()).c_str(), failures[x]->code());
        else if (w == "fresh") { std::unique_ptr<Failure> f(OPAQUE(failure)(x)); printf("%s %d\n", OPAQUE(kind)(f.get()).c_str(), f->code()); }
        else if (w == "area") printf("%d %s\n", shapes[x]->area(), shapes[x]->name().c_str());
        else if (w == "made") { auto s = OPAQUE(made)(x ? "square" : "other", x); printf("%d %s\n", s->area(), s->name().c_str()); }
        else if (w == "old") {  // old code catches what new code throws
            try { std::string log; printf("%d\n", OPAQUE(through)(x, log)); }
            catch (const Worse &f) { printf("old worse %d\n", f.code()); }
            catch (const Failure &f) { printf("old failure %d %s\n", f.code(), typeid(f).name()); }
            catch (const std::exception &e) { printf("old %s\n", e.what()); }
            catch (...) { printf("old unknown\n"); }
        } else if (w == "firm") {  // who throws out of a noexcept function ends by std::terminate
            fflush(stdout);
            rest = true;  // libgcc's lock must not be taken for ever in the child
            while (busy) usleep(100);
            pid_t child = fork();
            rest = false;
            if (!child) { std::set_terminate([] { _exit(42); }); OPAQUE(firm)(x); _exit(0); }
            int status;
            waitpid(child, &status, 0);
            printf("%d\n", WEXITSTATUS(status));
        } else if (w == "turns") { long t = turns; while (turns < t + 100) usleep(100); printf("on\n"); }
        fflush(stdout);
    }
    over = true;
    one.join();
    two.join();
    return 0;
}
