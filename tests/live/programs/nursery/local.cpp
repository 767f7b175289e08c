#include "thing.h"

int local(int x) {
    static Thing inside("inside", x);
    return inside.get();
}
