#include "thing.h"

void tell(const char *what, const char *name) { std::printf("%s%s\n", what, name); }

__attribute__((noinline)) void tick(int n) {
    int before = plain(n);
    std::printf("%d %d %d %d\n", n, before, kept(n), errno);
}

int main() {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    errno = 7;
    for (int n = 0; n < 12; n++)
        tick(n);
}
