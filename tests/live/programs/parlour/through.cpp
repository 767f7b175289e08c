#include "errors.h"
int through(int x, std::string &log) {
    Trace outer(log, 'o');
    Trace inner(log, 'i');
    return risky(x) + 1;
}
int firm(int x) noexcept { return risky(x); }
