#pragma once
#include <mutex>
#include <string>

extern std::mutex held; // by a thread that never lets go of it
void tell(const char *what, const char *name);
std::string told();

struct Thing {
    Thing(const char *name, int value);
    ~Thing();
    int get() const { return value; }
    const char *name;
    int value;
};

struct Trouble {
    explicit Trouble(int kind);
    int kind;
};

int plain(int x);
int kept(int x);
int local(int x);
int each_thread(int x);
