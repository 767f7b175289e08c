// It uses nothing of the C++ library's data.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
__attribute__((noinline)) int written(int x) { return x + 1; }
__attribute__((noinline)) int caught(int x) { return x + 2; }
__attribute__((noinline)) int streamed(int x) { return x + 3; }
int main() {
    char line[80];
    int x;
    int (*volatile all[])(int) = {written, caught, streamed};
    while (fgets(line, sizeof line, stdin)) {
        x = atoi(line + 1);
        printf("%d\n", all[line[0] - '0'](x));
        fflush(stdout);
    }
    return 0;
}
