/* Threads that call two functions for ever. What these return now is in the file that the first argument names; what
   the terminal says is echoed. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ticker.h"

static volatile long *shown;
static volatile sig_atomic_t interrupts;

__attribute__((noinline)) long value(long ticks) { return ticks * 0 + 0; }

static void *tick(void *unused) {
    (void)unused;
    for (long ticks = 0;; ticks++) {
        shown[0] = value(ticks);
        shown[1] = other(ticks);
        shown[2]++;
        usleep(500);
    }
    return 0;
}

__attribute__((noinline)) void slow(void) {
    for (int i = 0; i < 40; i++)
        usleep(50000);
    puts("slow is over");
}

int main(int count, char **words) {
    int file = open(words[1], O_RDWR | O_CREAT, 0600);
    if (count < 2 || file < 0 || ftruncate(file, 4096) != 0)
        return 1;
    shown = (volatile long *)mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], 0, tick, 0);
    char line[100];
    puts("ticking");
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "slow\n"))
            slow();
        printf("heard %s", line);
    }
    return 7;
}
