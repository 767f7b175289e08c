/* Waits in the system call that the first argument names, then says what came of it: result, errno, milliseconds.

   It says "ready" before. Calls with a timeout wait two seconds, the others until a byte comes on standard
   input. */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LIMIT 2000

static int word;
static sem_t semaphore;

static void *wake(void *unused)
{
    char byte;
    if (read(0, &byte, 1) < 0)
        perror("read");
    word = 1;
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
    sem_post(&semaphore);
    return unused;
}

static int waits(const char *mode)
{
    struct timespec limit = {LIMIT / 1000, LIMIT % 1000 * 1000000};
    struct timeval timeout = {LIMIT / 1000, LIMIT % 1000 * 1000};
    struct epoll_event event = {.events = EPOLLIN};
    struct pollfd input = {.fd = 0, .events = POLLIN};
    char byte;
    fd_set set;
    int queue = epoll_create1(0);
    pthread_t thread;

    if (!strcmp(mode, "nanosleep"))
        return syscall(SYS_nanosleep, &limit, 0);
    if (!strcmp(mode, "clock_nanosleep"))
        return clock_nanosleep(CLOCK_MONOTONIC, 0, &limit, 0);
    if (!strcmp(mode, "epoll_wait"))
        return epoll_wait(queue, &event, 1, LIMIT);
    if (!strcmp(mode, "poll"))
        return poll(0, 0, LIMIT);
    if (!strcmp(mode, "select"))
        return select(0, 0, 0, 0, &timeout);
    if (!strcmp(mode, "futex"))
        return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &limit, 0, 0);
    if (!strcmp(mode, "epoll_wait for ever")) {
        epoll_ctl(queue, EPOLL_CTL_ADD, 0, &event);
        return epoll_wait(queue, &event, 1, -1);
    }
    if (!strcmp(mode, "poll for ever"))
        return poll(&input, 1, -1);
    if (!strcmp(mode, "select for ever")) {
        FD_ZERO(&set);
        FD_SET(0, &set);
        return select(1, &set, 0, 0, 0);
    }
    if (!strcmp(mode, "read"))
        return read(0, &byte, 1);
    pthread_create(&thread, 0, wake, 0);
    if (!strcmp(mode, "futex for ever"))
        return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
    if (!strcmp(mode, "sem_wait"))
        return sem_wait(&semaphore);
    return -2;
}

int main(int count, char **arguments)
{
    struct timespec before, after;
    puts("ready");
    fflush(stdout);
    sem_init(&semaphore, 0, 0);
    clock_gettime(CLOCK_MONOTONIC, &before);
    errno = 0;
    int result = waits(arguments[count - 1]), error = errno;
    clock_gettime(CLOCK_MONOTONIC, &after);
    long elapsed = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    printf("%d %d %ld\n", result, error, elapsed);
    return 0;
}
