static int total = 1;
static int count = 20;

__attribute__((noinline)) static int step(int n) {
    count += 2;
    return n + count;
}

int two_step(int n) {
    total += n;
    return step(n) + (total > 1000000);
}

int two_count(void) { return count; }
