/* One name in two versions, and functions that are bound within the library. */
#define KEPT __attribute__((noinline, noclone))

KEPT int version_one(int x) { return x + 1; }
KEPT int version_two(int x) { return x + 2; }
__asm__(".symver version_one, versioned@OLD");
__asm__(".symver version_two, versioned@@NEW");

__attribute__((visibility("hidden"))) KEPT int secluded(int x) { return x + 10; }
__attribute__((visibility("protected"))) KEPT int sheltered(int x) { return x + 20; }
KEPT int reaches_hidden(int x) { return secluded(x) * 2; }
KEPT int reaches_protected(int x) { return sheltered(x) * 2; }
