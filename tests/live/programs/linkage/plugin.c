/* Built without -g: its symbols are all that tells whose it is. */
static int calls;
static __attribute__((noinline)) int inner(int x) { return x * 3; }
int plugged(int x) { calls++; return inner(x) + calls * 100; }
