#include "errors.h"
Failure::~Failure() {}
int Failure::code() const { return value; }
int Worse::code() const { return value * 10; }
int risky(int x) {
    switch (x) {
    case 1: throw Failure(1);
    case 2: throw Worse(2);
    case 3: throw std::runtime_error("risky");
    case 4: throw 4;
    }
    return x;
}
Failure *failure(int x) { if (x == 1) return new Failure(1); return new Worse(x); }
