#include "shapes.h"
int Square::area() const { return side * side; }
int Circle::area() const { return 3 * radius * radius; }
std::string Circle::name() const { return "circle"; }
std::unique_ptr<Shape> made(const std::string &what, int size) {
    if (what == "square") return std::make_unique<Square>(size);
    return std::make_unique<Circle>(size);
}
int first_count() { static int calls = 0; calls += 1; return 1000 * calls; }
