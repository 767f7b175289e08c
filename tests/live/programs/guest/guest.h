#pragma once
#include <string>
std::string show(int x);
