#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>
#define SCALE 10
#define OWN __attribute__((noinline))
struct Shape {
    virtual ~Shape() = default;
    virtual int area() const = 0;
    virtual std::string name() const { return "shape"; }
};
struct Square : Shape {
    explicit Square(int s) : side(s) {}
    int area() const override;
    int side;
};
struct Circle : Shape {
    explicit Circle(int r) : radius(r) {}
    int area() const override;
    std::string name() const override;
    int radius;
};
std::unique_ptr<Shape> made(const std::string &what, int size);
int first_count();
OWN inline int scaled(int x) { return x * SCALE; }
OWN inline int counted(int x) { static int count = first_count(); count += x; return count; }
template <typename T> OWN T twice(T x) { return x + x; }
struct Stock {
    static inline int left = 100;
    OWN int take(int n) { left -= n; return left; }
};
template <typename T> struct Box {
    std::vector<T> held;
    static int made;
    OWN void put(T x) { made += 1; held.push_back(x); }
    OWN T sum() const { T s{}; for (auto &x : held) s += x; return s; }
};
template <typename T> int Box<T>::made = 7;
int left_side(int x);
int right_side(int x);
int mapped(int x);
int boxed(int x);
int odd(int x);
