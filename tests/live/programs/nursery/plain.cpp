#include "thing.h"

// new variables
int plain(int x) { return x + 1; }
