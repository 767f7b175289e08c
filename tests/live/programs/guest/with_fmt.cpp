#include "guest.h"
#include <fmt/format.h>
std::string show(int x) {
    fmt::memory_buffer out;
    fmt::format_to(std::back_inserter(out), "{:>6}|{:#x}|{:.2f}|{}", x, x, x / 4.0, x > 0);
    for (int n = 0; n < 60; n++) fmt::format_to(std::back_inserter(out), "{}{:<9}", n ? "" : "|", n);
    return fmt::format("{} of {}", std::string(out.data(), 20), out.size());
}
