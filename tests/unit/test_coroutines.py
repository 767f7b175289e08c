"""Coroutines of C++: one that waits has a frame of its old code, and goes on in the new where that is the same."""

from __future__ import annotations

import pytest
from objects_from_c import Pair, compiled

from ipbp.formats.elf_object import read_object
from ipbp.pipeline.layouts import types_of_object
from ipbp.stages.compare import Status
from ipbp.stages.coroutines import Side, changed_coroutines

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
struct Wait {
    int n;
    bool await_ready() { return false; }
    void await_suspend(std::coroutine_handle<>) {}
    int await_resume() { return n; }
};
int first(int), second(int), third(int);
namespace deep { Task count(int from) { int sum = 0; for (int i = from;; i++) { sum += i; co_yield first(sum); } } }
Task mixed(int from) { int got = from; co_yield first(got); got += co_await Wait{from}; second(got); }
Task alike(int from) { co_yield first(from); second(from); co_yield third(from); second(from + 1); }
int plain(int x) { return x + 1; }
"""
KEPT = [
    ("x + 1", "x + 2"),
    ("sum += i;", "sum += i * 3;"),
    ("got += co_await Wait{from};", "got -= co_await Wait{from}; third(got);"),
    ("co_yield first(got);", "second(from); co_yield third(got);"),
    ("second(from + 1);", "second(from + 7);"),
    ("int plain(int x) { return x + 1; }", "int plain(int x) { return x + 1; }\nTask other() { co_yield 1; }"),
]
REFUSED = [
    ("int sum = 0;", "long sum = 0;", "_ZN4deep5count", "member 'sum"),
    ("int got = from;", "int got = from, more = 1;", "_Z5mixed", "'more"),
    ("got += co_await Wait{from};", "", "_Z5mixed", "is gone"),
    ("co_yield first(got);", "co_yield first(got); co_yield second(got);", "_Z5mixed", "member '"),
    (
        "co_yield first(from); second(from); co_yield third(from);",
        "co_yield third(from); second(from); co_yield first(from);",
        "_Z5alike",
        "exchanged",
    ),
]


def refused(old: str, new: str, compiler: str, *flags: str) -> list[tuple[str, str, str]]:
    flags = ("-std=c++20", *flags, "-ffunction-sections")
    graphs = [read_object(compiled(text, compiler, flags, "unit.cc"), "unit.cc") for text in (old, new)]
    pair = Pair(*graphs)
    types = [types_of_object(graph) for graph in graphs]
    sides = [Side(graph, kinds if kinds.is_described else None) for graph, kinds in zip(graphs, types, strict=True)]
    names = pair.named(Status.CHANGED, Status.NEW)
    return [(row.code, row.symbol or "", row.fact) for row in changed_coroutines(*sides, names, "unit.cc")]


DESCRIBED = [("gcc", "-O0"), ("gcc", "-O2"), ("clang-19", "-O0")]
# clang keeps a value in another register then, for the whole of the function.
_ELSEWHERE_TOO = "co_yield first(got);"


@pytest.mark.parametrize(
    ("before", "after", "compiler", "level"),
    [(*edit, *by) for edit in KEPT for by in DESCRIBED if edit[0] != _ELSEWHERE_TOO or by[0] == "gcc"],
)
def test_where_the_frame_is_kept_a_coroutine_goes_on_in_its_new_code(
    before: str, after: str, compiler: str, level: str
) -> None:
    assert SOURCE.count(before) == 1
    assert refused(SOURCE, SOURCE.replace(before, after), compiler, "-g", level) == []


@pytest.mark.parametrize(("compiler", "level"), DESCRIBED)
@pytest.mark.parametrize(("before", "after", "name", "words"), REFUSED)
def test_where_the_frame_or_the_places_to_wait_are_others_it_is_refused(
    before: str, after: str, name: str, words: str, compiler: str, level: str
) -> None:
    assert SOURCE.count(before) == 1
    ((code, symbol, fact),) = refused(SOURCE, SOURCE.replace(before, after), compiler, "-g", level)
    assert code == "coroutine-changed"
    assert symbol.startswith(name)
    assert words in fact


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", ("-O0",)), ("gcc", ("-O2",)), ("clang-19", ("-O0",)), ("clang-19", ("-O2",)), ("clang-19", ("-O2", "-g"))],
)
def test_so_it_is_where_nothing_tells_what_the_frame_is(compiler: str, flags: tuple[str, ...]) -> None:
    edited = SOURCE.replace("sum += i;", "sum += i * 3;")
    ((code, symbol, _fact),) = refused(SOURCE, edited, compiler, *flags)
    assert (code, symbol.removesuffix("i").removesuffix("E")) == ("coroutine-changed", "_ZN4deep5count")
    assert refused(SOURCE, SOURCE.replace("x + 1", "x + 2"), compiler, *flags) == []
