// The first process of a machine that exists for a test. Whoever connects to port 1 says a command in one line, words
// between spaces, and is then that command's input and output; before that it is told the process's number.
// `signal NUMBER PID` sends a signal instead.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void require(int is_true, const char *what) {
    if (is_true)
        return;
    perror(what);
    reboot(RB_POWER_OFF);
}

static void mount_on(const char *place, const char *type) {
    mkdir(place, 0755);
    require(mount(type, place, type, 0, 0) == 0, place);
}

static void load(const char *module) {
    int file = open(module, O_RDONLY | O_CLOEXEC);
    require(file >= 0 && syscall(SYS_finit_module, file, "", 0) == 0, module);
    close(file);
}

static void set_address(int socket, const char *interface, const char *address) {
    struct ifreq request = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
    strcpy(request.ifr_name, interface);
    in->sin_family = AF_INET;
    inet_aton(address, &in->sin_addr);
    require(ioctl(socket, SIOCSIFADDR, &request) == 0, interface);
    request.ifr_flags = IFF_UP;
    require(ioctl(socket, SIOCSIFFLAGS, &request) == 0, interface);
}

static void start(int peer) {
    char line[4096], *words[64];
    size_t length = 0, count = 0;
    while (length < sizeof line - 1 && read(peer, line + length, 1) == 1 && line[length] != '\n')
        length++;
    line[length] = 0;
    for (char *word = strtok(line, " "); word && count < 63; word = strtok(0, " "))
        words[count++] = word;
    words[count] = 0;
    if (count == 3 && !strcmp(words[0], "signal")) {
        dprintf(peer, "%d\n", kill(atoi(words[2]), atoi(words[1])));
        return;
    }
    if (count == 0 || fork() != 0)
        return;
    signal(SIGCHLD, SIG_DFL);
    setsid();
    dprintf(peer, "%d\n", getpid());
    for (int number = 0; number < 3; number++)
        dup2(peer, number);
    execvp(words[0], words);
    perror(words[0]);
    _exit(127);
}

int main(int count, char **modules) {
    mount_on("/proc", "proc");
    mount_on("/sys", "sysfs");
    mount_on("/dev", "devtmpfs");
    for (int number = 1; number < count; number++)
        load(modules[number]);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set_address(listener, "lo", "127.0.0.1");
    set_address(listener, "eth0", "10.0.2.15"); // what qemu's user network forwards to
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(1)};
    require(bind(listener, (struct sockaddr *)&here, sizeof here) == 0 && listen(listener, 8) == 0, "port 1");
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int peer = accept4(listener, 0, 0, SOCK_CLOEXEC);
        if (peer >= 0) {
            start(peer);
            close(peer);
        }
    }
}
