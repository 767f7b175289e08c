/* A loop that never returns keeps its sums in registers that the small function leaves alone. */
#include <stdio.h>
#include <unistd.h>

static unsigned char text[64];

__attribute__((noinline)) static unsigned mix(unsigned x) { return (x + 3) * 5 ^ (x >> 2); }
__attribute__((noinline)) unsigned apart(unsigned x) { return x * 3 + 1; }

int main(void)
{
    for (;;) {
        long size = read(0, text, sizeof text);
        if (size <= 0)
            return 0;
        unsigned a = 1, b = 2, c = 3;
        for (long i = 0; i + 1 < size; i++) {
            unsigned one = mix(text[i]);
            a += one;
            b ^= one * a;
            c += b;
        }
        printf("%u %u %u\n", a, b, c);
        fflush(stdout);
    }
}
