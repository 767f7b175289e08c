#define OTHER 100
__attribute__((noinline)) static long other(long ticks) { return ticks * 0 + OTHER; }
