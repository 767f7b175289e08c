/* Each command goes through one way in which a function is reached that compilers' own calls do not show. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define KEPT __attribute__((noinline, noclone))

int hand_scaled(int x);
int hand_summed(int x);
int hand_shared(int x);
int library_old(int x);
__asm__(".symver library_old, versioned@OLD");
int versioned(int x);
int sheltered(int x);
int reaches_hidden(int x);
int reaches_protected(int x);

KEPT int both(int x) { return library_old(x) * 10 + versioned(x); }

/* Built with nops before the entry and behind it. */
KEPT int padded(int x) { return x + 1; }

static atomic_int inside, may_leave, handled;

/* Patched while one of the threads is in here. */
KEPT void handler(int number) {
    inside++;
    while (!may_leave) {}
    handled += number;
}

static void *wait_for_signals(void *unused) {
    sigset_t none;
    sigemptyset(&none);
    for (;;) sigsuspend(&none);
    return unused;
}

int main(int count, char **argument) {
    char line[80], word[20];
    int a;
    pthread_t thread;
    void *plugin = count > 1 ? dlopen(argument[1], RTLD_NOW) : 0;
    int (*plugged)(int) = plugin ? (int (*)(int))dlsym(plugin, "plugged") : 0;
    signal(SIGUSR1, handler);
    pthread_create(&thread, 0, wait_for_signals, 0);
    while (fgets(line, sizeof line, stdin)) {
        a = 0;
        sscanf(line, "%19s %d", word, &a);
        if (!strcmp(word, "hand")) printf("%d %d %d\n", hand_scaled(a), hand_summed(a), hand_shared(a));
        else if (!strcmp(word, "padded")) printf("%d\n", padded(a));
        else if (!strcmp(word, "versions")) printf("%d\n", both(a));
        else if (!strcmp(word, "visible")) printf("%d %d %d\n", reaches_hidden(a), reaches_protected(a), sheltered(a));
        else if (!strcmp(word, "plugin")) printf("%d\n", plugged ? plugged(a) : -1);
        else if (!strcmp(word, "signal")) {
            may_leave = a;
            pthread_kill(thread, SIGUSR1);
            while (!inside) {}
            printf("inside\n");
        } else if (!strcmp(word, "leave")) {
            may_leave = 1;
            while (!handled) {}
            printf("%d\n", handled);
            inside = handled = 0;
        }
        fflush(stdout);
    }
    return 0;
}
