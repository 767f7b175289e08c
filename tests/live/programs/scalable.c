/* Two threads that compute in scalable vectors and make no system call: what they hold must stay what it is. A line on
   standard input asks: rounds, wrong ones, what `answer` says. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static volatile unsigned long rounds, wrong;
static volatile long said;

__attribute__((noinline)) long answer(long x) { return x + 1; }

static void hold(unsigned char *vector, unsigned char *predicate)
{
    __asm__ volatile("ptrue p5.b\n"
                     "index z9.b, #1, #3\n"
                     "mov x9, #40000\n"
                     "1: subs x9, x9, #1\n"
                     "b.ne 1b\n"
                     "str z9, [%0]\n"
                     "str p5, [%1]\n" ::"r"(vector), "r"(predicate) : "x9", "z9", "p5", "memory", "cc");
}

static void *work(void *unused)
{
    unsigned long size;
    __asm__("cntb %0" : "=r"(size));
    for (;;) {
        unsigned char vector[256] = {0}, predicate[32] = {0};
        hold(vector, predicate);
        for (unsigned long n = 0; n < size; n++)
            if (vector[n] != (unsigned char)(1 + 3 * n) || predicate[n / 8] != 0xff)
                wrong++;
        said = answer(1);
        rounds++;
    }
    return unused;
}

int main(void)
{
    char line[64];
    pthread_t thread;
    pthread_create(&thread, 0, work, 0);
    pthread_create(&thread, 0, work, 0);
    while (fgets(line, sizeof line, stdin)) {
        unsigned long before = rounds;
        while (rounds < before + 2)
            ;
        printf("%lu %lu %ld\n", rounds, wrong, said);
        fflush(stdout);
    }
    return 0;
}
