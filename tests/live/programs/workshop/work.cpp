// What optimising compilers make something else of: inlined methods and templates, clones, dropped variables.
#include <vector>

namespace shapes {
class Point {
  public:
    Point(int x, int y) : x(x), y(y) {}
    int length() const
    {
        return square(x) + square(y);
    }

  private:
    static int square(int value)
    {
        return value * value;
    }
    int x, y;
};

template <typename T> T small(T value)
{
    T halved = value / 2;
    return halved & 0xff;
}
} // namespace shapes

static int calls = 0;

static __attribute__((noinline)) int length(const shapes::Point &point, int, int scale)
{
    calls++;
    return point.length() * scale;
}

int work(int n)
{
    std::vector<int> parts;
    for (int i = 0; i < n; i++) {
        shapes::Point here(i, i + 1);
        parts.push_back(length(here, 3, 2) + shapes::small(i));
    }
    int sum = 0;
    for (int part : parts)
        sum += part;
    return sum + calls;
}
