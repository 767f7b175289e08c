// What frames.c does, with a class and a template.
#include <iostream>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

struct Item {
    int value;
    Item *next;
};

namespace shop {
class Till {
  public:
    explicit Till(double rate) : rate(rate) {}
    double add(const std::string &name, Item *item, double discount)
    {
        std::string shown = name + "!";
        double price = rate;
        price += item->value * (1 - discount);
        total += price;
        return price + shown.size();
    }
    double total = 0;

  private:
    double rate;
};

static void require(bool is_so, const char *what)
{
    if (!is_so)
        *(volatile const char *volatile *)nullptr = what;
}

int checked(int value)
{
    int twice = value * 2;
    require(twice < 10, "small");
    return twice;
}

int asserted(int value)
{
    int twice = value * 2;
    if (!(twice < 10))
        throw std::out_of_range("twice");
    return twice;
}

int plain(int value)
{
    int twice = value + value;
    int more = twice + 1;
    return more;
}
} // namespace shop

template <typename T> T largest(const std::vector<T> &all, T *fallback)
{
    T best = *fallback;
    for (const T &one : all)
        if (one > best)
            best = one;
    return best;
}

static bool read_line(std::string &line)
{
    char one = 0;
    line.clear();
    while (one != '\n') {
        if (read(0, &one, 1) != 1)
            return false;
        line += one;
    }
    line.pop_back();
    return true;
}

int main()
{
    std::string line;
    shop::Till till(2.5);
    while (read_line(line)) {
        if (line == "add")
            std::cout << till.add("tea", nullptr, 0.5) << std::endl;
        else if (line == "largest")
            std::cout << largest<int>({1, 5, 3}, nullptr) << std::endl;
        else if (line == "checked")
            std::cout << shop::checked(7) << std::endl;
        else if (line == "asserted")
            std::cout << shop::asserted(7) << std::endl;
        else if (line == "plain")
            std::cout << shop::plain(20) << std::endl;
        else
            std::cout << till.total << std::endl;
    }
}
