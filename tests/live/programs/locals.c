/* The unit that is edited: thread-local variables of this unit, of another one and of the C library. */
#include <errno.h>

extern __thread long outer;
__thread long shared = 5;
static __thread long own[3] = {1, 2, 3};
static __thread long zero;
#ifdef LARGE
__thread char large[1 << 16]; /* too much for the room that glibc keeps for plugins in every thread */
#endif

long visit(long x) {
    outer += x;
    shared += 10 * x;
    own[1] += 100 * x;
    zero += 1000 * x;
    errno = (int)x;
    return x;
}

long tell(void) {
    long sum = outer + shared + own[1] + zero + errno;
    return sum;
}
