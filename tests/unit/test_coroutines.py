"""Coroutines of C++: one that waits has a frame of its old code."""

from __future__ import annotations

import pytest
from objects_from_c import Pair, compiled

from ipbp.formats.elf_object import read_object
from ipbp.stages.coroutines import changed_coroutines

SOURCE = """
#include <coroutine>
struct Task {
    struct promise_type {
        int v = 0;
        Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() {}
        std::suspend_always yield_value(int x) { v = x; return {}; }
    };
    std::coroutine_handle<promise_type> handle;
};
namespace deep { Task count(int from) { for (int i = from;; i++) co_yield i; } }
int plain(int x) { return x + 1; }
"""


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["gcc", "clang-19"])
def test_a_changed_coroutine_is_refused_and_what_stands_beside_it_is_not(compiler: str, level: str) -> None:
    def refused(old: str, new: str) -> list[tuple[str, str | None]]:
        flags = ("-std=c++20", level, "-ffunction-sections")
        one, other = (read_object(compiled(text, compiler, flags, "unit.cc"), "unit.cc") for text in (old, new))
        pair = Pair(one, other)
        # gcc has the frame in the place of what the coroutine takes.
        return [
            (row.code, (row.symbol or "").removesuffix("i"))
            for row in changed_coroutines(other, pair.comparison, "unit.cc")
        ]

    assert refused(SOURCE, SOURCE.replace("x + 1", "x + 2")) == []
    assert refused(SOURCE, SOURCE.replace("co_yield i;", "co_yield i * 3;")) == [
        ("coroutine-changed", "_ZN4deep5countE")
    ]
    fresh = "int plain(int x) { return x + 1; }\nTask other() { co_yield 1; }"
    assert refused(SOURCE, SOURCE.replace("int plain(int x) { return x + 1; }", fresh)) == []
