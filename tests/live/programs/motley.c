/* What optimised code is made of: each command goes through one construct that a patch must not upset. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEPT __attribute__((noinline, noclone))
#define OPAQUE(f) ({ __typeof__(&f) p = &f; __asm__ volatile("" : "+r"(p)); p; })

static jmp_buf back;
static volatile int handled;

static inline __attribute__((always_inline)) int inlined(int x) { return x * 3 + 1; }

/* gcc makes copies of this for the constants that it is called with. */
static __attribute__((noinline)) int cloned(int x, int mode) {
    int sum = 0;
    for (int i = 0; i < x; i++) sum += mode == 1 ? i : mode == 2 ? i * i : i ^ mode;
    return sum;
}

KEPT int clones(int x) { return cloned(x, 1) + cloned(x, 2); }

KEPT int last(int x) { return x + 7; }
KEPT int tail(int x) { return x > 5 ? last(x * 2) : last(x); }

KEPT int summed(int count, ...) {
    va_list list;
    int sum = 0;
    va_start(list, count);
    while (count-- > 0) sum += va_arg(list, int);
    va_end(list);
    return sum;
}

KEPT void jumps(int x) { longjmp(back, x + 1); }

/* On the stack, with its setjmp done, while a patch comes. */
KEPT int jumped(int x) {
    char line[80];
    volatile int kept = x;
    int came = setjmp(back);
    if (came) return kept * 100 + came;
    printf("waiting\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return -1;
    OPAQUE(jumps)(x);
    return 0;
}

KEPT int machine(const char *text) {
    static const void *const to[] = {&&out, &&add, &&twice};
    static const unsigned char kind[256] = {['+'] = 1, ['*'] = 2};
    int value = 0;
#define NEXT goto *to[kind[(unsigned char)*text]]
    NEXT;
add: value += 1; text++; NEXT;
twice: value *= 2; text++; NEXT;
out: return value;
}

KEPT int rare(int x) {
    if (__builtin_expect(x < 0, 0)) {
        fprintf(stderr, "rare %d\n", x);
        abort();
    }
    return x + 40;
}

KEPT void handler(int number) { handled += number; }

static __attribute__((constructor)) void at_start(void) { handled = 1000; }
KEPT void at_exit(void) { printf("bye from the old code\n"); }
static __attribute__((destructor)) void at_end(void) { printf("ended by the old code\n"); }

int main(void) {
    char line[80], word[20];
    int a;
    signal(SIGUSR1, handler);
    atexit(at_exit);
    while (fgets(line, sizeof line, stdin)) {
        a = 0;
        sscanf(line, "%19s %d", word, &a);
        if (!strcmp(word, "inlined")) printf("%d\n", inlined(a));
        else if (!strcmp(word, "clones")) printf("%d\n", OPAQUE(clones)(a));
        else if (!strcmp(word, "tail")) printf("%d\n", OPAQUE(tail)(a));
        else if (!strcmp(word, "summed")) printf("%d\n", OPAQUE(summed)(3, a, 10, 20));
        else if (!strcmp(word, "jumped")) printf("%d\n", OPAQUE(jumped)(a));
        else if (!strcmp(word, "machine")) printf("%d\n", OPAQUE(machine)("++*+"));
        else if (!strcmp(word, "rare")) printf("%d\n", OPAQUE(rare)(a));
        else if (!strcmp(word, "signal")) { raise(SIGUSR1); printf("%d\n", handled); }
        fflush(stdout);
    }
    return 0;
}
