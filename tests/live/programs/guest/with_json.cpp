#include "guest.h"
#include <nlohmann/json.hpp>
using nlohmann::json;
std::string show(int x) {
    json made = {{"x", x}, {"list", {1, 2.5, "three", nullptr}}, {"flag", x > 0}};
    try {
        return json::parse(x < 0 ? "{broken" : made.dump())["list"].dump() + made["x"].dump();
    } catch (const json::parse_error &error) {
        return std::to_string(error.id);
    }
}
