/* What optimising compilers make something else of: inlined functions, clones with other arguments, dropped variables. */
struct point {
    int x, y;
};

static int calls = 0;

static inline int square(int value) { return value * value; }

static __attribute__((noinline)) int length(struct point *point, int unused, int scale) {
    calls++;
    return (square(point->x) + square(point->y)) * scale;
}

static int small(int value) {
    int halved = value / 2;
    return halved & 0xff;
}

int work(int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
        struct point here = {i, i + 1};
        int part = length(&here, 3, 2);
        sum += part + small(i);
    }
    return sum + calls;
}
