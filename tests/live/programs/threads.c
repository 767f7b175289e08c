/* Threads that wait, and on each command from standard input do the same thing, each with its own variables. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#ifdef PLUGIN
static long (*visit)(long x);
static long (*tell)(void);
#else
long visit(long x);
long tell(void);
#endif
__thread long outer = 7;

enum { MOST = 64 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t told = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static char word[64];
static long round_number, answered, results[MOST];
static int count;

static void *work(void *argument) {
    long index = (long)argument, seen = 0;
    pthread_mutex_lock(&lock);
    seen = round_number;
    answered += 1;
    pthread_cond_signal(&done);
    for (;;) {
        while (seen == round_number) pthread_cond_wait(&told, &lock);
        seen = round_number;
        results[index] = strcmp(word, "visit") == 0 ? visit(index + 1) : tell();
        answered += 1;
        pthread_cond_signal(&done);
    }
    return 0;
}

static void start(void) {
    pthread_t thread;
    pthread_mutex_lock(&lock);
    answered = 0;
    pthread_create(&thread, 0, work, (void *)(long)count++);
    while (answered < 1) pthread_cond_wait(&done, &lock);
    pthread_mutex_unlock(&lock);
}

static void ask_all(void) {
    pthread_mutex_lock(&lock);
    answered = 0;
    round_number += 1;
    pthread_cond_broadcast(&told);
    while (answered < count) pthread_cond_wait(&done, &lock);
    for (int i = 0; i < count; i++) printf("%ld%s", results[i], i + 1 < count ? " " : "\n");
    pthread_mutex_unlock(&lock);
}

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
#ifdef PLUGIN
    void *plugin = dlopen(PLUGIN, RTLD_NOW);
    visit = (long (*)(long))dlsym(plugin, "visit");
    tell = (long (*)(void))dlsym(plugin, "tell");
#endif
    while (count < 8) start();
    while (scanf("%63s", word) == 1) {
        if (strcmp(word, "start") == 0) {
            start();
            printf("%d\n", count);
        } else {
            ask_all();
        }
    }
    return 0;
}
