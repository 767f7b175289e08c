#include "thing.h"

// new variables
static thread_local Thing mine("mine", 5);
int each_thread(int x) {
    mine.value += x;
    return mine.get();
}
