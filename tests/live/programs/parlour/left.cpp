#include "shapes.h"
namespace {
int calls = 0;
OWN int hidden(int x) { calls += 1; return x + 1; }
struct Local { OWN int value(int x) const { return hidden(x) + 1; } };
}
int left_side(int x) { Local l; return scaled(x) + twice(x) + counted(1) - Stock().take(1) + l.value(x) - calls; }
int boxed(int x) {
    static Box<int> box;
    box.put(x);
    return box.sum() * 100 + Box<int>::made;
}
