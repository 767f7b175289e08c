/* A server that forks its workers before it serves: each waits for its socket, answers, and counts what it answered. The
   master listens to a socket of its own, by which it is told to fork one more worker, or to start one anew by exec. Each
   tells what its very first call gave. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

static int answered;
static int first; /* what main called `answer` for */
static const char *folder;

__attribute__((noinline)) static int answer(int x)
{
    return x + 1;
}

static int listen_as(const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", folder, name);
    unlink(address.sun_path);
    if (bind(listener, (struct sockaddr *) &address, sizeof address) || listen(listener, 16))
        exit(3);
    return listener;
}

/* One line in, one line out. */
static void serve(int listener, int is_master);

static void work(void)
{
    char name[32];
    snprintf(name, sizeof name, "%d", (int) getpid());
    serve(listen_as(name), 0);
}

static void start_worker(void)
{
    if (fork() == 0)
        work();
}

static void start_by_exec(void)
{
    if (fork() == 0) {
        execl("/proc/self/exe", "prefork", folder, "worker", (char *) 0);
        _exit(4);
    }
}

static void serve(int listener, int is_master)
{
    for (;;) {
        char line[64] = "";
        int peer = accept(listener, 0, 0);
        if (peer < 0)
            continue;
        if (read(peer, line, sizeof line - 1) > 0) {
            if (is_master && strcmp(line, "fork") == 0)
                start_worker();
            else if (is_master && strcmp(line, "exec") == 0)
                start_by_exec();
            else
                answered++;
            dprintf(peer, "%d %d", strcmp(line, "first") == 0 ? first : answer(atoi(line)), answered);
        }
        shutdown(peer, SHUT_RDWR); /* a worker that was just forked has it, too */
        close(peer);
    }
}

int main(int count, char **words)
{
    first = answer(0);
    folder = words[1];
    if (count > 2 && strcmp(words[2], "worker") == 0)
        work();
    signal(SIGCHLD, SIG_IGN);
    for (int started = 0; started < (count > 2 ? atoi(words[2]) : 3); started++)
        start_worker();
    serve(listen_as("master"), 1);
    return 0;
}
