/* Functions of two to four bytes without padding between them, called all the time by another thread. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define TIGHT __attribute__((noinline, aligned(1)))

TIGHT int before(int x) { return x * 100 + 17; }
TIGHT int zero(void) { return 0; }
TIGHT int same(int x) { return x; }
TIGHT int looped(int n) {
    int sum = 0;
    do sum += n; while (--n > 0);
    return sum;
}
__attribute__((noinline, aligned(64))) int after(int x) { return x * 1000 + 19; }

static volatile int wrong, rounds;

static void *hammer(void *unused) {
    int (*volatile no)(void) = zero;
    int (*volatile one)(int) = same, (*volatile many)(int) = looped;
    (void)unused;
    for (;;) {
        int nothing = no(), itself = one(5), sum = many(4);
        if ((nothing != 0 && nothing != 70) || (itself != 5 && itself != 75) || (sum != 10 && sum != 80)) wrong = 1;
        rounds += 1;
    }
    return 0;
}

int main(void) {
    char line[80];
    pthread_t thread;
    int (*volatile no)(void) = zero;
    int (*volatile one)(int) = same, (*volatile many)(int) = looped, (*volatile last)(int) = after;
    pthread_create(&thread, 0, hammer, 0);
    while (fgets(line, sizeof line, stdin)) {
        printf("%d %d %d %d %s\n", no(), one(5), many(4), last(1) + before(0), wrong ? "wrong" : "right");
        fflush(stdout);
    }
    return 0;
}
