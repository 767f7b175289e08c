#include "thing.h"

// new variables
int plain(int n) { return n + 1; }
