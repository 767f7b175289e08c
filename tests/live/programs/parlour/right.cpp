#include "shapes.h"
#include <algorithm>
namespace {
int calls = 0;
OWN int hidden(int x) { calls += 100; return x + 5; }
struct Local { OWN int value(int x) const { return hidden(x) + 7; } };
}
int right_side(int x) { Local l; return scaled(x) + twice(x) + counted(1) - Stock().take(1) + l.value(x) - calls; }
static std::function<int(int)> kept;
int mapped(int x) {
    std::vector<int> all{3, 1, 2};
    int base = x;
    std::sort(all.begin(), all.end(), [](int a, int b) { return a > b; });
    if (!kept) kept = [base](int y) { return base * 100 + y; };
    int sum = 0;
    std::for_each(all.begin(), all.end(), [&](int y) { sum = sum * 10 + y + base; });
    return kept(sum);
}
int odd(int x) {
    struct Counter { int n; OWN int next() { static int total = 50; total += n; return total; } };
    Counter c{x};
    return c.next();
}
