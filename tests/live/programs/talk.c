#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "talk.h"

typedef int (*operation)(int);

/* The compiler must not learn here what a function returns: main is on the stack for ever and keeps its old code. */
#define OPAQUE(f) ({ __typeof__(&f) p = &f; __asm__ volatile("" : "+r"(p)); p; })

static int calls;
static const int table[4] = {3, 1, 4, 1};

__attribute__((noinline)) int body(int x) { return x + 1; }

__attribute__((noinline)) const char *greeting(void) { return "hello from the old code"; }

__attribute__((noinline)) int counted(int x) {
    static int count = 100;
    count += x;
    return count;
}

__attribute__((noinline)) int counted_too(int x) {
    static int count = 500;
    count += x;
    return count;
}

__attribute__((noinline)) int recursive(int n) { return n <= 0 ? 0 : n + recursive(n - 1); }

__attribute__((noinline)) static int helper(int x) {
    calls += 1;
    return x * 2 + table[x & 3];
}

__attribute__((noinline)) int uses_helper(int x) {
    int helped = helper(x);
    return helped + calls;
}

__attribute__((noinline)) int same(operation f) { return f == body; }

__attribute__((noinline)) int text_length(const char *s) { return s[0] != 0; }

__attribute__((noinline)) int on_stack(int x) {
    char line[64];
    printf("waiting\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return -1;
    return x + 1;
}

operation stored = body;

int main(void) {
    char line[256], word[64];
    int a = 0, b = 0;
    while (fgets(line, sizeof line, stdin)) {
        a = b = 0;
        if (sscanf(line, "%63s %d %d", word, &a, &b) < 1) continue;
        if (!strcmp(word, "body")) printf("%d\n", OPAQUE(body)(a));
        else if (!strcmp(word, "greeting")) printf("%s\n", OPAQUE(greeting)());
        else if (!strcmp(word, "counted")) printf("%d\n", OPAQUE(counted)(a));
        else if (!strcmp(word, "counted_too")) printf("%d\n", OPAQUE(counted_too)(a));
        else if (!strcmp(word, "recursive")) printf("%d\n", OPAQUE(recursive)(a));
        else if (!strcmp(word, "uses_helper")) printf("%d\n", OPAQUE(uses_helper)(a));
        else if (!strcmp(word, "stored")) printf("%d %d\n", stored(a), OPAQUE(same)(stored));
        else if (!strcmp(word, "text_length")) printf("%d\n", OPAQUE(text_length)(line));
        else if (!strcmp(word, "on_stack")) printf("%d\n", OPAQUE(on_stack)(a));
        else if (!strcmp(word, "area")) {
            struct point p = {a, b};
            int found = OPAQUE(area)(&p);
            printf("%d %d\n", found, shared_total);
        }
        else if (!strcmp(word, "shape")) printf("%d\n", OPAQUE(shape)(a, b));
        else if (!strcmp(word, "pid")) printf("%d\n", (int)getpid());
        else printf("what?\n");
        fflush(stdout);
    }
    return 0;
}
