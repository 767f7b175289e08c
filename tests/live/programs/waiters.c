/* A thread in each of the system calls that a stop of a debugger can disturb.

   "go" on standard input starts them, "edited" prints what edited() returns, "wake" gives those that wait for ever what
   they wait for; then each call's name, result, errno and milliseconds are printed. The argument: milliseconds that the
   calls with a deadline wait. */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int limit, word, other_word, channel[2], pair[2];
static sem_t semaphore;
static struct timespec duration;

__attribute__((noinline)) int edited(void) { return 1; }

static int queue_of(int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    int queue = epoll_create1(0);
    if (fd >= 0)
        epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event);
    return queue;
}

static int in_nanosleep(void) { return syscall(SYS_nanosleep, &duration, 0); }
static int in_clock_nanosleep(void) { return clock_nanosleep(CLOCK_MONOTONIC, 0, &duration, 0); }
static int in_epoll(void) { struct epoll_event e; return epoll_wait(queue_of(-1), &e, 1, limit); }
static int in_epoll_for_ever(void) { struct epoll_event e; return epoll_wait(queue_of(channel[0]), &e, 1, -1); }
static int in_epoll_pwait(void) { struct epoll_event e; return epoll_pwait(queue_of(channel[0]), &e, 1, -1, 0); }
static int in_poll(void) { return poll(0, 0, limit); }
static int in_poll_for_ever(void) { struct pollfd p = {channel[0], POLLIN, 0}; return poll(&p, 1, -1); }
static int in_select(void)
{
    struct timeval timeout = {duration.tv_sec, duration.tv_nsec / 1000};
    return select(0, 0, 0, 0, &timeout);
}
static int in_select_for_ever(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(channel[0], &set);
    return select(channel[0] + 1, &set, 0, 0, 0);
}
static int in_read(void) { char byte; return read(pair[0], &byte, 1); }
static int in_recv(void) { char byte; return recv(pair[0], &byte, 1, 0); }
static int in_futex(void) { return syscall(SYS_futex, &other_word, FUTEX_WAIT_PRIVATE, 0, &duration, 0, 0); }
static int in_futex_for_ever(void) { return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0); }
static int in_sem_wait(void) { return sem_wait(&semaphore); }

static struct {
    const char *name;
    int (*wait)(void);
    int result, error;
    long elapsed;
    pthread_t thread;
} calls[] = {
    {"nanosleep", in_nanosleep},
    {"clock_nanosleep", in_clock_nanosleep},
    {"epoll_wait", in_epoll},
    {"epoll_wait_for_ever", in_epoll_for_ever},
    {"epoll_pwait_for_ever", in_epoll_pwait},
    {"poll", in_poll},
    {"poll_for_ever", in_poll_for_ever},
    {"select", in_select},
    {"select_for_ever", in_select_for_ever},
    {"read_for_ever", in_read},
    {"recv_for_ever", in_recv},
    {"futex", in_futex},
    {"futex_for_ever", in_futex_for_ever},
    {"sem_wait_for_ever", in_sem_wait},
};
#define COUNT (sizeof calls / sizeof *calls)

static void *run(void *argument)
{
    struct timespec before, after;
    int n = (int)(long)argument;
    clock_gettime(CLOCK_MONOTONIC, &before);
    errno = 0;
    calls[n].result = calls[n].wait();
    calls[n].error = errno;
    clock_gettime(CLOCK_MONOTONIC, &after);
    calls[n].elapsed = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    return 0;
}

static void wake(void)
{
    word = 1;
    if (write(channel[1], "x", 1) != 1 || write(pair[1], "xx", 2) != 2)
        perror("write");
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 100, 0, 0, 0);
    sem_post(&semaphore);
    for (unsigned n = 0; n < COUNT; n++) {
        pthread_join(calls[n].thread, 0);
        printf("%s %d %d %ld\n", calls[n].name, calls[n].result, calls[n].error, calls[n].elapsed);
    }
    printf("end\n");
}

int main(int count, char **arguments)
{
    char line[64];
    int (*volatile call)(void) = edited;
    limit = count > 1 ? atoi(arguments[1]) : 3000;
    duration = (struct timespec){limit / 1000, limit % 1000 * 1000000L};
    sem_init(&semaphore, 0, 0);
    if (pipe(channel) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return 1;
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "go\n")) {
            for (unsigned n = 0; n < COUNT; n++)
                pthread_create(&calls[n].thread, 0, run, (void *)(long)n);
            printf("gone\n");
        } else if (!strcmp(line, "edited\n"))
            printf("%d\n", call());
        else if (!strcmp(line, "wake\n"))
            wake();
        fflush(stdout);
    }
    return 0;
}
