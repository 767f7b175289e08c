#include <stdio.h>

const char *plugged(unsigned long number);

int main(void) {
    unsigned long number;
    while (scanf("%lu", &number) == 1) {
        printf("%s\n", plugged(number));
        fflush(stdout);
    }
    return 0;
}
