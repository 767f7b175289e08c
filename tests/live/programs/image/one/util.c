static int count = 10;
static int total;

__attribute__((noinline)) static int step(int n) {
    count += 1;
    return n + count;
}

int one_step(int n) {
    total += n;
    return step(n) + (total > 1000000);
}

int one_count(void) { return count; }
