/* Eight threads call one function as fast as they can and count what comes back: 1 from the old code, 1000 from the new.

   A line on standard input asks for the counters: calls, old answers, new answers, other answers, and the sum of all
   answers. They are taken when no call is under way; at the end of input the program says them once more and ends. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define THREADS 8

static struct { _Alignas(64) unsigned long calls, old, new, other, sum; } counters[THREADS];
static atomic_int pause_asked, paused, end_asked;

__attribute__((noinline)) long answer(long x)
{
    return x + 1;
}

static void *hammer(void *argument)
{
    long n = (long)argument;
    while (!atomic_load_explicit(&end_asked, memory_order_relaxed)) {
        for (int i = 0; i < 1000; i++) {
            long found = answer(i) - i;
            counters[n].calls++;
            counters[n].sum += found;
            if (found == 1)
                counters[n].old++;
            else if (found == 1000)
                counters[n].new++;
            else
                counters[n].other++;
        }
        if (atomic_load(&pause_asked)) {
            atomic_fetch_add(&paused, 1);
            while (atomic_load(&pause_asked))
                ;
            atomic_fetch_sub(&paused, 1);
        }
    }
    return 0;
}

static void say(void)
{
    unsigned long calls = 0, old = 0, new = 0, other = 0, sum = 0;
    for (int n = 0; n < THREADS; n++) {
        calls += counters[n].calls;
        old += counters[n].old;
        new += counters[n].new;
        other += counters[n].other;
        sum += counters[n].sum;
    }
    printf("%lu %lu %lu %lu %lu\n", calls, old, new, other, sum);
    fflush(stdout);
}

int main(void)
{
    pthread_t threads[THREADS];
    char line[16];
    for (long n = 0; n < THREADS; n++)
        pthread_create(&threads[n], 0, hammer, (void *)n);
    while (fgets(line, sizeof line, stdin)) {
        atomic_store(&pause_asked, 1);
        while (atomic_load(&paused) != THREADS)
            ;
        say();
        atomic_store(&pause_asked, 0);
        while (atomic_load(&paused) != 0)
            ;
    }
    atomic_store(&end_asked, 1);
    for (int n = 0; n < THREADS; n++)
        pthread_join(threads[n], 0);
    say();
    return 0;
}
