#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

int count;
static int step = 1;
static __thread int beats = 100;
volatile int worked;

__attribute__((noinline)) int beat(int n) {
    count += step;
    beats++;
    return n * 2;
}

__attribute__((noinline)) void tick(int n) { printf("%d %d %d\n", n, beat(n), beats + count); }

static void *work(void *unused) {
    for (;;) {
        worked = beat(1);
        usleep(1000);
    }
    return unused;
}

int main(int argc, char **argv) {
    (void)argv;
    setvbuf(stdout, 0, _IOLBF, 0);
    pthread_t thread;
    if (argc > 1)
        pthread_create(&thread, 0, work, 0);
    for (int n = 0;; n++) {
        tick(n);
        usleep(20000);
    }
}
