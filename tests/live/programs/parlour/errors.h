#pragma once
#include <exception>
#include <stdexcept>
#include <string>
struct Failure {
    explicit Failure(int v) : value(v) {}
    virtual ~Failure();
    virtual int code() const;
    int value;
};
struct Worse : Failure {
    using Failure::Failure;
    int code() const override;
};
struct Trace {
    Trace(std::string &l, char c) : log(l), letter(c) {}
    ~Trace() { log += letter; }
    std::string &log;
    char letter;
};
int risky(int x);
int through(int x, std::string &log);
std::string caught(int x);
std::string again(int x);
int firm(int x) noexcept;
std::string kind(const Failure *f);
Failure *failure(int x);
