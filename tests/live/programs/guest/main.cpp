// A program that formats with a library which nobody here wrote, on demand and in a thread that never rests.
#include "guest.h"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <unistd.h>
// The compiler must not learn here what the function does: main is on the stack for ever and keeps its old code.
static std::string (*volatile shown)(int) = show;
static std::atomic<long> turns{0};
static std::atomic<bool> over{false};
static void work() {
    for (int n = 0; !over; n++) {
        if (shown(n % 1000).empty()) abort();
        turns += 1;
        if (n % 64 == 0) usleep(500);
    }
}
int main() {
    char line[80];
    std::thread one(work);
    while (fgets(line, sizeof line, stdin)) {
        long before = turns;
        printf("%s\n", shown(atoi(line)).c_str());
        fflush(stdout);
        while (turns < before + 10) usleep(100);
    }
    over = true;
    one.join();
    return 0;
}
