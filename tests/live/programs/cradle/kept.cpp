#include "thing.h"

static Thing first("first", 10);
// new variables
Thing second("second", 20);
int kept(int n) { return n + first.value++ + second.get(); }
