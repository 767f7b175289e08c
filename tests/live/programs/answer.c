/* A main that calls what its edits give another signature. */
#include <stdio.h>
#include <stdlib.h>

int answer(int x)
{
    return x + 1;
}

int main(void)
{
    char line[80];
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin))
        printf("%d\n", answer(atoi(line)));
    return 0;
}
