/* A static array of which clang keeps the parts apart: the first two are counted here, the last one there. */
#include <stdio.h>
static unsigned t[3] = {5, 6, 7};
__attribute__((noinline)) static unsigned count(unsigned x)
{
    t[0] += x;
    t[1] += 2 * x;
    return t[0] * 1000 + t[1];
}
__attribute__((noinline)) static unsigned last(unsigned x)
{
    t[2] += x;
    return t[2];
}
int main(void)
{
    char line[80];
    unsigned a;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "count %u", &a) == 1) printf("%u\n", count(a));
        else if (sscanf(line, "last %u", &a) == 1) printf("%u\n", last(a));
    }
    return 0;
}
