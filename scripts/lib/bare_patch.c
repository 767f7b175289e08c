/* The least that any patch of a running program takes: stop all threads, look where they are, write, let them go on.
 *
 * bare_patch PID ADDRESS FUNCTIONS ROUNDS: each round writes five bytes at each of FUNCTIONS entries, sixteen bytes
 * apart from ADDRESS on, and 64 bytes of code for each, in four strokes over the same functions; all of them are the
 * bytes that are there already. Printed are the milliseconds of each round from the first interrupt to just before the
 * first thread is resumed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pid_t threads[4096];
static int count;

static void seize_all(const char *pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/task", pid);
    DIR *folder = opendir(path);
    if (!folder) err(1, "%s", path);
    for (struct dirent *entry; (entry = readdir(folder));) {
        pid_t thread = atoi(entry->d_name);
        if (thread && count < 4096 && ptrace(PTRACE_SEIZE, thread, 0, 0) == 0) threads[count++] = thread;
    }
    closedir(folder);
    if (!count) errx(1, "no thread of %s can be traced", pid);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    if (argc != 5) errx(2, "usage: bare_patch PID ADDRESS FUNCTIONS ROUNDS");
    off_t address = strtoull(argv[2], 0, 16);
    size_t functions = strtoul(argv[3], 0, 10), size = functions * 16;
    char path[64], *code = malloc(size);
    snprintf(path, sizeof path, "/proc/%s/mem", argv[1]);
    int memory = open(path, O_RDWR);
    if (memory < 0 || pread(memory, code, size, address) != (ssize_t)size) err(1, "%s", path);
    seize_all(argv[1]);
    for (int round = atoi(argv[4]); round-- > 0;) {
        double began = now_ms();
        for (int i = 0; i < count; i++) ptrace(PTRACE_INTERRUPT, threads[i], 0, 0);
        for (int i = 0; i < count; i++) {
            int status;
            struct user_regs_struct registers;
            if (waitpid(threads[i], &status, __WALL) < 0 || !WIFSTOPPED(status)) errx(1, "a thread is gone");
            if (ptrace(PTRACE_GETREGS, threads[i], 0, &registers) < 0) err(1, "PTRACE_GETREGS");
        }
        for (int i = 0; i < 4; i++)
            if (pwrite(memory, code, size, address) != (ssize_t)size) err(1, "write");
        for (size_t i = 0; i < functions; i++)
            if (pwrite(memory, code + i * 16, 5, address + i * 16) != 5) err(1, "write");
        printf("%.4f\n", now_ms() - began);
        for (int i = 0; i < count; i++) ptrace(PTRACE_CONT, threads[i], 0, 0);
        usleep(20000);
    }
    return 0; /* which lets all threads go, untraced */
}
