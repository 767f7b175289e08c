// A main that calls what throws nothing until it is edited.
#include <cstdio>
#include <cstdlib>

__attribute__((noinline)) int answer(int x) noexcept
{
    return x + 1 + (std::getenv("NOBODY") != nullptr);
}

int main()
{
    char line[80];
    setvbuf(stdout, nullptr, _IOLBF, 0);
    while (std::fgets(line, sizeof line, stdin)) {
        try {
            std::printf("%d\n", answer(std::atoi(line)));
        } catch (int thrown) {
            std::printf("caught %d\n", thrown);
        }
    }
}
