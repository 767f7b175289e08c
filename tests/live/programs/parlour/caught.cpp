#include "errors.h"
std::string caught(int x) {
    std::string log;
    try {
        Trace here(log, 'h');
        int got = through(x, log);
        return "got " + std::to_string(got);
    } catch (const Worse &w) {
        return log + " worse " + std::to_string(w.code());
    } catch (const Failure &f) {
        return log + " failure " + std::to_string(f.code());
    } catch (const std::exception &e) {
        return log + " " + e.what();
    } catch (int i) {
        return log + " int " + std::to_string(i);
    } catch (...) {
        return log + " unknown";
    }
}
std::string again(int x) {
    std::string log;
    try {
        try {
            through(x, log);
        } catch (const Failure &f) {
            log += "(" + std::to_string(f.code()) + ")";
            try { risky(3); } catch (const std::exception &e) { log += e.what(); }
            throw;
        }
    } catch (const Worse &w) {
        log += " worse";
    } catch (const Failure &f) {
        log += " failure";
    } catch (...) {
        log += " other";
    }
    return log;
}
std::string kind(const Failure *f) { return dynamic_cast<const Worse *>(f) ? "worse" : "plain"; }
