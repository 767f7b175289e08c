// A function and a variable that an edit makes global, and static again; then the function takes more.
#include <cstdio>
struct Counter {
    unsigned n;
    explicit Counter(unsigned x) : n(x) { std::puts("made"); }
    ~Counter() { n = 0; }
};
static unsigned total = 3;
__attribute__((noinline)) static unsigned count(unsigned x)
{
    static Counter made(x);
    static unsigned last = 40;
    made.n += x;
    last += x;
    total += x;
    return made.n * 10000 + last * 100 + total;
}
__attribute__((noinline)) static unsigned asked(unsigned x)
{
    return count(x);
}
int main()
{
    char line[80];
    unsigned a;
    setvbuf(stdout, nullptr, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin))
        if (sscanf(line, "count %u", &a) == 1) std::printf("%u\n", asked(a));
}
