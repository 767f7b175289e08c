#include "thing.h"
#include <cerrno>
#include <csignal>
#include <stdexcept>
#include <unistd.h>

std::mutex held;
static char notes[4096];
static unsigned used;

// Not a string: this is written to before that would be made, and after it is gone.
void tell(const char *what, const char *name) {
    for (const char *text : {what, name, " "})
        while (*text && used + 1 < sizeof notes) notes[used++] = *text++;
}

std::string told() {
    std::string all(notes, used);
    used = 0;
    return all;
}

Thing::Thing(const char *name, int value) : name(name), value(value) {
    tell("+", name);
    errno = 0;
}

Thing::~Thing() {
    std::string line = std::string("-") + name + " " + std::to_string(value) + "\n";
    if (write(1, line.data(), line.size()) < 0) _exit(9);
    value = -1;
}

Trouble::Trouble(int kind) : kind(kind) {
    tell("trouble", "");
    switch (kind) {
    case 1: throw std::runtime_error("no luck today");
    case 2: throw kind;
    case 3: *(volatile int *)nullptr = 1; break;
    case 4: abort();
    case 5: held.lock(); break;
    }
}
