/* Reads numbers, answers with what work makes of them. */
#include <stdio.h>
#include <stdlib.h>

int work(int n);

int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin))
        printf("%d\n", work(atoi(line)));
    return 0;
}
