#pragma once
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <unistd.h>

void tell(const char *what, const char *name);

struct Thing {
    std::string name;
    int value;
    Thing(const char *name, int value) : name(name), value(value) { tell("+", name); }
    ~Thing() { std::printf("-%s %d\n", name.c_str(), value); }
    int get() const { return value; }
};

struct Trouble {
    explicit Trouble(int kind) {
        errno = 99;
        if (kind == 1)
            throw std::runtime_error("no luck today");
        if (kind == 2)
            throw 5;
        if (kind == 3)
            std::abort();
    }
};

int plain(int n);
int kept(int n);
