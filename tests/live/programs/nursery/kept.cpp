#include "thing.h"

static int computed = plain(1);
static Thing first("first", 10);
Thing second("second", 20);
// new variables
inline Thing shared("shared", 30);
template <int N> struct Many { static Thing one; };
template <int N> Thing Many<N>::one("one", N);
int kept(int x) { return x + first.get() + second.get() + shared.get() + computed + Many<40>::one.get(); }
