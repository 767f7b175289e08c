// What ticker.c does, with a class, strings, and exceptions that are thrown all the time.
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

#include "ticker.h"

namespace {
volatile long *shown;

class Gauge {
  public:
    explicit Gauge(std::string name) : name(std::move(name)) {}
    virtual ~Gauge() = default;
    virtual long value(long ticks) const { return name.empty() ? -1 : ticks * 0 + 0; }

  private:
    std::string name;
};

void tick() {
    Gauge gauge("a name that is longer than a string keeps within itself");
    for (long ticks = 0;; ticks++) {
        try {
            shown[0] = gauge.value(ticks);
            shown[1] = other(ticks);
            if (ticks % 100 == 0)
                throw ticks;
        } catch (long) {
        }
        shown[2]++;
        usleep(500);
    }
}
} // namespace

void slow() {
    for (int i = 0; i < 40; i++)
        usleep(50000);
    std::puts("slow is over");
}

int main(int count, char **words) {
    int file = count < 2 ? -1 : open(words[1], O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, 4096) != 0)
        return 1;
    shown = static_cast<volatile long *>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    for (int i = 0; i < 3; i++)
        std::thread(tick).detach();
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    char line[100];
    std::puts("ticking");
    while (std::fgets(line, sizeof line, stdin)) {
        if (line == std::string("slow\n"))
            slow();
        std::printf("heard %s", line);
    }
    std::_Exit(7); // the threads go on to the last
}
