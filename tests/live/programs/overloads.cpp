// Static variables of functions that an edit changes in what they take, and in where they are: of a member, of a
// template, of a lambda expression, and of two functions of one name of which one at a time is used.
#include <cstdio>
struct Book {
    __attribute__((noinline)) unsigned read(unsigned x)
    {
        static unsigned read_pages = 100;
        return read_pages += x;
    }
};
template <class T> __attribute__((noinline)) T sum(T x)
{
    static T summed = 1000;
    return summed += x;
}
static inline __attribute__((noinline)) unsigned chosen(unsigned x)
{
    static unsigned choices = 10;
    return choices += x;
}
static inline __attribute__((noinline)) unsigned chosen(unsigned long x)
{
    static unsigned choices = 20;
    return choices += (unsigned)x;
}
__attribute__((noinline)) unsigned told(unsigned x)
{
    auto tell = [](unsigned y) {
        static unsigned said = 10000;
        return said += y;
    };
    return tell(x);
}
static Book book;
__attribute__((noinline)) static unsigned asked(unsigned x)
{
    return book.read(x) + sum(x) + told(x);
}
__attribute__((noinline)) static unsigned chose(unsigned x)
{
    return chosen(x);
}
int main()
{
    char line[80];
    unsigned a;
    setvbuf(stdout, nullptr, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "ask %u", &a) == 1) std::printf("%u\n", asked(a));
        if (sscanf(line, "choose %u", &a) == 1) std::printf("%u\n", chose(a));
    }
}
