"""C++: what became static, or is static no more, is the same function and the same variable."""

from __future__ import annotations

import pytest
from objects_from_c import SECTIONS, compiled

from ipbp.formats.elf_object import read_object
from ipbp.graph.model import LinkGraph
from ipbp.stages.correlate import correlate
from ipbp.stages.linkage import without_linkage, without_parameters

STATIC = """
struct Counter { int n; Counter(int); ~Counter(); };
static int total = 3;
namespace shop { static int sold; }
static int f(int x) { static Counter c(x); static int last; last += x; return c.n + last + ++total + ++shop::sold; }
int use(int x) { return f(x) * f(x + 1); }
int (*kept)(int) = f;
"""
GLOBAL = (
    STATIC.replace("static int total", "int total")
    .replace("static int f", "int f")
    .replace("static int sold", "int sold")
)
NAMES = {"_ZL1fi": "_Z1fi", "_ZZL1fiE1c": "_ZZ1fiE1c", "_ZGVZL1fiE1c": "_ZGVZ1fiE1c", "_ZZL1fiE4last": "_ZZ1fiE4last"}
VARIABLES = {"_ZL5total": "total", "_ZN4shopL4soldE": "_ZN4shop4soldE"}


def graph(source: str, compiler: str, level: str) -> LinkGraph:
    return read_object(compiled(source, compiler, (level, *SECTIONS), "unit.cc"), "unit.cc")


def pairs(old: LinkGraph, new: LinkGraph) -> dict[str, str]:
    symbol = correlate(old, new).symbol
    rows = [row for row in range(len(new.symbols)) if symbol[row] >= 0 and new.symbols.block[row] >= 0]
    return {old.symbols.name[symbol[row]]: new.symbols.name[row] for row in rows}


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_what_differs_in_linkage_alone_is_paired(compiler: str, level: str) -> None:
    static, plain = graph(STATIC, compiler, level), graph(GLOBAL, compiler, level)
    wanted = {**NAMES, **VARIABLES}
    assert wanted.items() <= pairs(static, plain).items()
    assert {new: old for old, new in wanted.items()}.items() <= pairs(plain, static).items()


def test_where_a_side_has_both_nothing_is_paired() -> None:
    both = STATIC + "int f(long);\nnamespace other { int total; }\n"
    old = graph(both, "g++", "-O0")
    new = graph(GLOBAL.replace("int total = 3;", "int total = 3; namespace a { static int total; }"), "g++", "-O0")
    assert pairs(old, new)["_ZL5total"] == "total"
    assert "_ZN5other5totalE" not in pairs(old, new)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("_ZL5total", "total"),
        ("_ZL5totali", "_Z5totali"),
        ("_ZN4shopL4soldE", "_ZN4shop4soldE"),
        ("_Z1fIL_Z1gvEEvv", "_Z1fIL_Z1gvEEvv"),
        ("_Z1fILi5EEvv", "_Z1fILi5EEvv"),
        ("L5total", "L5total"),
    ],
)
def test_the_mark_of_linkage_is_known(name: str, plain: str) -> None:
    assert without_linkage(name) == plain


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("_ZZL2f0jE4last", "_ZZL2f0jjE4last"),
        ("_ZZL2f0jE4last", "_ZZ2f0PKcRSt6vectorIiSaIiEEE4last"),
        ("_ZZN4shop4sellEiE4last", "_ZZN4shop4sellEilE4last"),
        ("_ZGVZ2f0jE4last", "_ZGVZ2f0vE4last"),
        ("_ZZ2f0jE4last_0", "_ZZ2f0jjE4last_0"),
    ],
)
def test_a_variable_is_called_alike_whatever_its_function_takes(name: str, same: str) -> None:
    assert without_parameters(name) == without_parameters(same) != ""


def test_variables_of_other_functions_are_called_otherwise() -> None:
    names = [
        "_ZZ2f0jE4last",
        "_ZZ2f1jE4last",
        "_ZZ2f0jE4next",
        "_ZGVZ2f0jE4last",
        "_ZZN1a2f0EjE4last",
        "_ZZ2f0jE4last_0",
    ]
    assert len({without_parameters(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["_Z2f0j", "_ZL5total", "last", "_ZZ2f0IiEvT_E4last", "_ZZN1aC1EvE4last", "_ZZ2f0jEs"])
def test_of_all_else_nothing_is_said(name: str) -> None:
    assert without_parameters(name) == ""


@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_the_variables_of_a_function_that_takes_more_are_paired(compiler: str) -> None:
    more = STATIC.replace("int f(int x)", "int f(int x, int y)").replace("(x + 1)", "(x + 1, 7)")
    more = more.replace("f(x) *", "f(x, 5) *").replace("int (*kept)(int)", "int (*kept)(int, int)")
    found = pairs(graph(STATIC, compiler, "-O0"), graph(more, compiler, "-O0"))
    assert {found[name] for name in NAMES if name != "_ZL1fi"} == {
        "_ZZL1fiiE1c",
        "_ZGVZL1fiiE1c",
        "_ZZL1fiiE4last",
    }
    assert "_ZL1fi" not in found


def test_of_two_functions_that_may_be_meant_none_is() -> None:
    two = (
        STATIC
        + "static int f(int x, long y) { static int last; return last += x + y; }\nint o() { return f(1, 2L); }\n"
    )
    changed = (
        two.replace("int f(int x)", "int f(char x)")
        .replace("long y", "char y")
        .replace("(*kept)(int)", "(*kept)(char)")
    )
    assert "_ZZL1fiE4last" not in pairs(graph(two, "g++", "-O0"), graph(changed, "g++", "-O0"))
