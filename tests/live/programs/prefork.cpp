/* prefork.c in C++: what answers is behind a virtual function, and throws. */
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct Rule {
    virtual ~Rule() = default;
    virtual int apply(int x) const = 0;
};

struct More : Rule {
    int apply(int x) const override
    {
        if (x < 0)
            throw std::out_of_range("too few: " + std::to_string(x));
        return x + 1;
    }
};

static std::unique_ptr<Rule> rule = std::make_unique<More>();
static int answered, first;
static std::string folder;

static int answer(int x)
{
    try {
        return rule->apply(x);
    } catch (const std::out_of_range &) {
        return -1;
    }
}

static int listen_as(const std::string &name)
{
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    (folder + "/" + name).copy(address.sun_path, sizeof address.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(address.sun_path);
    if (bind(listener, (sockaddr *) &address, sizeof address) || listen(listener, 16))
        exit(3);
    return listener;
}

static void serve(int listener, bool is_master);

static void start_worker()
{
    if (fork() == 0)
        serve(listen_as(std::to_string(getpid())), false);
}

static void start_by_exec()
{
    if (fork() == 0) {
        execl("/proc/self/exe", "prefork", folder.c_str(), "worker", (char *) 0);
        _exit(4);
    }
}

static void serve(int listener, bool is_master)
{
    for (;;) {
        char content[64] = "";
        int peer = accept(listener, 0, 0);
        if (peer < 0)
            continue;
        if (read(peer, content, sizeof content - 1) > 0) {
            std::string line = content;
            if (is_master && line == "fork")
                start_worker();
            else if (is_master && line == "exec")
                start_by_exec();
            else
                answered++;
            int said = line == "first" ? first : answer(atoi(content));
            std::string text = std::to_string(said) + " " + std::to_string(answered);
            if (write(peer, text.data(), text.size()) < 0)
                answered--;
        }
        shutdown(peer, SHUT_RDWR);
        close(peer);
    }
}

int main(int count, char **words)
{
    first = answer(0);
    folder = words[1];
    if (count > 2 && std::string(words[2]) == "worker")
        serve(listen_as(std::to_string(getpid())), false);
    signal(SIGCHLD, SIG_IGN);
    for (int started = 0; started < atoi(words[2]); started++)
        start_worker();
    serve(listen_as("master"), true);
}
