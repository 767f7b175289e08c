#include "plugin_part.h"

static int calls;

int plugin_own(int x) { return x + 10; }

int plugin_work(int x) {
    calls += 1;
    return plugin_own(x) + calls;
}
