/* The program of the contract suite: threads that compute, sleep and wait, and known things in memory.

   It says "ready" when all of its threads are where they stay, and ends when its standard input does. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

unsigned long counter_of_contract = 0x1122334455667788;
volatile unsigned long spins;
static pthread_barrier_t barrier;
static int empty_pipe[2];

__attribute__((noinline)) unsigned long add_for_contract(unsigned long one, unsigned long other) { return one + other; }

/* Nothing calls it: no thread is ever in it. */
__attribute__((noinline)) int entry_of_contract(int value)
{
    int sum = value;
    for (int i = 0; i < 10; i++)
        sum += i * value;
    return sum;
}

static void *spin(void *unused)
{
    pthread_barrier_wait(&barrier);
    for (;;)
        spins++;
    return unused;
}

static void *sleep_on(void *unused)
{
    pthread_barrier_wait(&barrier);
    for (;;)
        usleep(50000);
    return unused;
}

static void *read_on(void *unused)
{
    char byte;
    pthread_barrier_wait(&barrier);
    if (read(empty_pipe[0], &byte, 1) < 0)
        perror("read");
    return unused;
}

__attribute__((noinline)) void ready_for_contract(void)
{
    puts("ready");
    fflush(stdout);
}

int main(void)
{
    char byte;
    pthread_t thread;
    if (pipe(empty_pipe) != 0)
        return 1;
    pthread_barrier_init(&barrier, 0, 4);
    pthread_create(&thread, 0, spin, 0);
    pthread_create(&thread, 0, sleep_on, 0);
    pthread_create(&thread, 0, read_on, 0);
    pthread_barrier_wait(&barrier);
    ready_for_contract();
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
