#include "library.h"

int total = 7;
static int calls;

int interposed(int x) { return x + 60; }

__attribute__((visibility("hidden"))) int hidden_one(int x) { return x + 3; }

__attribute__((visibility("protected"))) int protected_one(int x) { return x + 4; }

int twice(int x) { return x * 2; }

int outer(int x) {
    calls += 1;
    return twice(x) + calls;
}

int add_to_total(int x) {
    total += x;
    return total;
}
