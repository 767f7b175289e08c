/* Variables that no 32-bit distance spans: -mcmodel=medium or large, 3 GiB of which two pages are used. */
#include <stdio.h>
#include <string.h>

#define SIZE (3UL << 30)
char far_away[SIZE];
static int count = 10;
char after[1 << 16];

__attribute__((noinline)) static int helper(int x) { return x + count++; }

__attribute__((noinline)) int edited(int x) {
    far_away[SIZE - 1] += 1;
    after[x] += 1;
    return helper(x) + 100 * far_away[SIZE - 1];
}

int main(void) {
    char line[256];
    int x;
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "edited %d", &x) == 1)
            printf("%d\n", edited(x));
        else
            printf("%d %d %d\n", count, far_away[SIZE - 1], after[3]);
        fflush(stdout);
    }
    return 0;
}
