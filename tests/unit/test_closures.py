"""Lambda expressions of C++: which of them an edit made others."""

from __future__ import annotations

import pytest
from objects_from_c import compiled

from ipbp.formats.elf_object import read_object
from ipbp.pipeline.layouts import types_of_object
from ipbp.stages.closures import renewed_closures

SOURCE = """
int next();
template <typename F> __attribute__((noinline)) int call(F f) { return f(next()); }
int other(int x) { return call([x](int y) { return x + y; }); }
int owner(int x, int z) {
    return call([x](int y) { return x * y; }) + call([z](int y) { return z - y; });
}
struct Class { int v; int method() { return call([this](int y) { return v + y; }); } };
int use(Class &c) { return c.method(); }
"""
BUILDS = [("gcc", "-O0"), ("gcc", "-O2"), ("clang-19", "-O0"), ("clang-19", "-O2")]


def renewed(old: str, new: str, compiler: str, level: str) -> tuple[set[str], int]:
    """Functions whose names say whose closures they were made for, and the number of notes."""
    graphs = [read_object(compiled(text, compiler, ("-g", level), "unit.cc"), "unit.cc") for text in (old, new)]
    before, after = map(types_of_object, graphs)
    names, notes = renewed_closures(before, after, *graphs)
    owners = {owner for name in names for owner in ("5other", "5owner", "6method") if owner in name}
    return owners, len(notes)


@pytest.mark.parametrize(("compiler", "level"), BUILDS)
@pytest.mark.parametrize(
    ("old", "new", "owners"),
    [
        ("return x * y;", "return x * y + 7;", set()),
        ("int owner(int x, int z) {", "\n\nint more;\nint owner(int x, int z) {", set()),
        ("[x](int y) { return x * y; }", "[x, z](int y) { return x * y + z; }", {"5owner"}),
        ("[x](int y) { return x * y; }", "[&x](int y) { return x * y; }", {"5owner"}),
        ("    return call([x]", "    return call([](int y) { return y; }) + call([x]", {"5owner"}),
        (" + call([z](int y) { return z - y; })", "", {"5owner"}),
        ("[this](int y) { return v", "[this, c = v](int y) { return c", {"6method"}),
        (
            "call([x](int y) { return x * y; }) + call([z](int y) { return z - y; })",
            "call([x](int y) { return x - y; }) + call([z](int y) { return z * y; })",
            {"5owner"},
        ),
    ],
)
def test_closures_are_others_when_what_they_capture_or_their_number_is(
    old: str, new: str, owners: set[str], compiler: str, level: str
) -> None:
    assert SOURCE.count(old) == 1
    assert renewed(SOURCE, SOURCE.replace(old, new), compiler, level) == (owners, len(owners))
