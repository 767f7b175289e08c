/* A program with threads and two files of one name. It does what it is told on stdin, one command a line, and answers
   one line each on stdout. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*operation)(int);
int one_step(int n), two_step(int n), one_count(void), two_count(void);

/* main never returns, so the compiler must not learn here what a function does. */
#define OPAQUE(f) ({ __typeof__(&f) p = &f; __asm__ volatile("" : "+r"(p)); p; })

static atomic_int beats;
static int edits = 100;
static const char *const words[] = {"zero", "one", "two", "many"};

__attribute__((noinline)) int body(int x) { return x + 1; }

__attribute__((noinline)) int twin(int x) { return x * 7 - 3; }

__attribute__((noinline)) int same_as_twin(int x) { return x * 7 - 3; }

__attribute__((noinline)) const char *greeting(void) { return "hello from the old code"; }

__attribute__((noinline)) const char *word(int n) { return words[n < 3 ? n : 3]; }

__attribute__((noinline)) int shape(int kind, int value) {
    switch (kind) {
    case 0: return value + 1;
    case 1: return value * value;
    case 2: return value - 7;
    case 3: return value / 2;
    case 4: return value ^ 0x55;
    case 5: return value << 3;
    default: return 0;
    }
}

__attribute__((noinline)) int counted(int x) {
    static int count = 500;
    count += x;
    return count + edits;
}

__attribute__((noinline)) int beat(void) { return 1; }

__attribute__((noinline)) int texts(const char *line) { return line[0] != 0; }

operation stored = body;

static void *worker(void *unused) {
    for (;;) {
        beats += OPAQUE(beat)();
        usleep(500);
    }
    return unused;
}

static int in_threads(int target) { /* whether every thread now beats upwards, or downwards */
    int before = beats;
    for (int i = 0; i < 4000; i++) {
        usleep(500);
        if (target > 0 ? beats > before : beats < before) return target;
        before = target > 0 ? (beats < before ? beats : before) : (beats > before ? beats : before);
    }
    return 0;
}

int main(void) {
    char line[256], name[64];
    pthread_t thread;
    int a = 0, b = 0;
    for (int i = 0; i < 2; i++) pthread_create(&thread, 0, worker, 0);
    while (fgets(line, sizeof line, stdin)) {
        a = b = 0;
        if (sscanf(line, "%63s %d %d", name, &a, &b) < 1) continue;
        if (!strcmp(name, "body")) printf("%d\n", OPAQUE(body)(a));
        else if (!strcmp(name, "twin")) printf("%d %d\n", OPAQUE(twin)(a), OPAQUE(same_as_twin)(a));
        else if (!strcmp(name, "greeting")) printf("%s\n", OPAQUE(greeting)());
        else if (!strcmp(name, "word")) printf("%s\n", OPAQUE(word)(a));
        else if (!strcmp(name, "shape")) printf("%d\n", OPAQUE(shape)(a, b));
        else if (!strcmp(name, "counted")) printf("%d\n", OPAQUE(counted)(a));
        else if (!strcmp(name, "texts")) printf("%d\n", OPAQUE(texts)(line));
        else if (!strcmp(name, "stored")) printf("%d\n", stored(a));
        else if (!strcmp(name, "step")) printf("%d %d\n", OPAQUE(one_step)(a), OPAQUE(two_step)(a));
        else if (!strcmp(name, "count")) printf("%d %d\n", OPAQUE(one_count)(), OPAQUE(two_count)());
        else if (!strcmp(name, "beat")) printf("%d\n", in_threads(a));
        else printf("what?\n");
        fflush(stdout);
    }
    return 0;
}
