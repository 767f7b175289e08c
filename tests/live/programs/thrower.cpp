#include <cstdio>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

struct Shape {
    virtual ~Shape() {}
    virtual int area() const = 0;
};

struct Square : Shape {
    int side;
    explicit Square(int s) : side(s) {}
    int area() const override { return side * side; }
};

static std::vector<Shape *> shapes;

static int risky(int n) {
    if (n % 2)
        throw std::runtime_error("odd " + std::to_string(n));
    return n;
}

__attribute__((noinline)) int guarded(int n) {
    try {
        return risky(n) + shapes[0]->area();
    } catch (const std::exception &error) {
        return -int(std::string(error.what()).size());
    }
}

__attribute__((noinline)) void tick(int n) { std::printf("%d %d %zu\n", n, guarded(n), shapes.size()); }

int main() {
    setvbuf(stdout, 0, _IOLBF, 0);
    shapes.push_back(new Square(3));
    for (int n = 0;; n++) {
        tick(n);
        usleep(20000);
    }
}
