#include "thing.h"
#include <cerrno>
#include <condition_variable>
#include <iostream>
#include <thread>

static std::mutex lock;
static std::condition_variable changed;
static int asked, answered, last;
static bool leaving;

static void worker() {
    std::unique_lock<std::mutex> guard(lock);
    while (!leaving) {
        changed.wait(guard, [] { return leaving || asked != answered; });
        if (leaving) break;
        last = each_thread(1);
        answered = asked;
        changed.notify_all();
    }
}

static int ask(std::thread &) {
    std::unique_lock<std::mutex> guard(lock);
    asked++;
    changed.notify_all();
    changed.wait(guard, [] { return asked == answered; });
    return last;
}

int main() {
    std::thread other(worker);
    std::thread holder([] {
        held.lock();
        std::unique_lock<std::mutex> guard(lock);
        changed.wait(guard, [] { return leaving; });
    });
    std::string word;
    int x;
    errno = 77;
    while (std::cin >> word >> x) {
        if (word == "told") std::cout << told() << std::endl;
        if (word == "plain") std::cout << plain(x) << std::endl;
        if (word == "kept") std::cout << kept(x) << std::endl;
        if (word == "local") std::cout << local(x) << std::endl;
        if (word == "mine") std::cout << each_thread(x) << std::endl;
        if (word == "theirs") std::cout << ask(other) << std::endl;
        if (word == "fresh") std::thread([&] { std::cout << each_thread(x) << std::endl; }).join();
        if (word == "caught") std::cout << std::uncaught_exceptions() << (std::current_exception() ? " one" : " none") << std::endl;
    }
    {
        std::unique_lock<std::mutex> guard(lock);
        leaving = true;
        changed.notify_all();
    }
    other.join();
    holder.join();
    return 0;
}
