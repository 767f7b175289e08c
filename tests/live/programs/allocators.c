/* Threads that do nothing but allocate and free; the main one answers to each line. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((noinline)) long next(long x) {
    return x + 1;
}

static void *work(void *argument) {
    unsigned size = (unsigned)(long)argument;
    for (;;) {
        char *first = malloc(size % 3000 + 1), *second = malloc(size % 70000 + 1);
        first[0] = second[0] = 1;
        for (volatile int i = 0; i < 300; i++) {}
        free(first);
        free(second);
        size = size * 1103515245 + 12345;
    }
    return 0;
}

int main(void) {
    pthread_t thread;
    char line[64];
    setvbuf(stdout, 0, _IONBF, 0);
    for (long i = 0; i < 4; i++) pthread_create(&thread, 0, work, (void *)i);
    while (fgets(line, sizeof line, stdin)) printf("%ld\n", next(atol(line)));
    return 0;
}
