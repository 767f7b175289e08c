// A class, a template, and what crashes in them.
#include <iostream>
#include <string>
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
    return static_cast<bool>(std::getline(std::cin, line));
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
        else
            std::cout << till.total << std::endl;
    }
}
