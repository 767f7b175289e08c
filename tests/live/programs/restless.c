/* A program that never rests in the way that its argument says, and answers all the same. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

__attribute__((noinline)) int body(int x) { return x + 1; }
static int (*volatile opaque)(int) = body;
static volatile long seen;

static void on_signal(int number) { seen += number; }

static void *forks(void *unused) {
    for (;;) {
        pid_t child = fork();
        if (child == 0) _exit(opaque(5) == 6 || opaque(5) == 1005 ? 0 : 1);
        int status;
        waitpid(child, &status, 0);
        if (status) abort();
    }
    return unused;
}

static void *nothing(void *unused) {
    opaque(5);
    return unused;
}

static void *spawns(void *unused) {
    for (;;) {
        pthread_t thread;
        if (!pthread_create(&thread, 0, nothing, 0)) pthread_join(thread, 0);
    }
    return unused;
}

static void *loads(void *unused) {
    for (;;) {
        void *library = dlopen("libm.so.6", RTLD_NOW);
        if (library) dlclose(library);
        opaque(5);
    }
    return unused;
}

static void raise_always(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    struct itimerval often = {{0, 2000}, {0, 2000}};
    setitimer(ITIMER_REAL, &often, 0);
}

static void exec_again(int number) {
    (void)number;
    execl("/proc/self/exe", "restless", "execs", (char *)0);
}

static void exec_soon(void) {
    sigset_t all;
    sigfillset(&all); /* a signal's mask stays over execve(2) */
    sigprocmask(SIG_UNBLOCK, &all, 0);
    struct sigaction action = {.sa_handler = exec_again, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    struct itimerval once = {{0, 0}, {0, 700000}};
    setitimer(ITIMER_REAL, &once, 0);
}

static void exit_soon(void) {
    struct itimerval once = {{0, 0}, {0, 1000 * (getpid() % 40 + 1)}};
    setitimer(ITIMER_REAL, &once, 0); /* SIGALRM ends it */
}

/* No room for 2 GiB on both sides of the program. */
static void fill_memory(void) {
    unsigned long around = (unsigned long)&fill_memory & ~0xfffffUL;
    unsigned long from = around - 0x80000000UL, to = around + 0x80100000UL; /* code may be a megabyte further up */
    for (unsigned long size = 1 << 20; size >= 4096; size /= 16)
        for (unsigned long at = from; at < to; at += size)
            mmap((void *)at, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
}

static void filtered(void) {
    struct sock_filter allow[] = {{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
    struct sock_fprog program = {1, allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int count, char **words) {
    const char *how = count > 1 ? words[1] : "";
    pthread_t thread;
    if (!strcmp(how, "forks")) pthread_create(&thread, 0, forks, 0);
    if (!strcmp(how, "spawns")) pthread_create(&thread, 0, spawns, 0);
    if (!strcmp(how, "loads")) pthread_create(&thread, 0, loads, 0);
    if (!strcmp(how, "signals")) raise_always();
    if (!strcmp(how, "execs")) exec_soon();
    if (!strcmp(how, "full")) fill_memory();
    if (!strcmp(how, "filtered")) filtered();
    char line[80];
    while (read(0, line, 1) == 1) { /* a byte a question: nothing is lost by an execve */
        if (line[0] == 'e') exit_soon();
        int size = sprintf(line, "%d\n", opaque(5));
        if (write(1, line, size) != size) return 2;
    }
    return 0;
}
