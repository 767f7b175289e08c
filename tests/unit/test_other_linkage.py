"""C++: what became static, or is static no more, is the same function and the same variable."""

from __future__ import annotations

import pytest
from objects_from_c import SECTIONS, compiled

from ipbp.formats.elf_object import read_object
from ipbp.graph.model import LinkGraph
from ipbp.stages.correlate import correlate
from ipbp.stages.cxx_names import local_name, without_unnamed
from ipbp.stages.linkage import Declared, without_linkage

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


def one(_name: str) -> int:
    """The source has one static variable of each name."""
    return 1


def pairs(old: LinkGraph, new: LinkGraph, declared: Declared = one) -> dict[str, str]:
    symbol = correlate(old, new, declared=declared).symbol
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


def key(name: str) -> str:
    found = local_name(name)
    return found.key if found is not None else ""


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("_ZZL2f0jE4last", "_ZZL2f0jjE4last"),
        ("_ZZL2f0jE4last", "_ZZ2f0PKcRSt6vectorIiSaIiEEE4last"),
        ("_ZZN4shop4sellEiE4last", "_ZZN4shop4sellEilE4last"),
        ("_ZZN4shop4sellEiE4last", "_ZZNK4shop4sellEilE4last"),
        ("_ZZN4shop4sellEiE4last", "_ZZN4shop12_GLOBAL__N_14sellEiE4last"),
        ("_ZZ2f0P1aE4last", "_ZZN12_GLOBAL__N_12f0EPNS_1aEE4last"),
        ("_ZGVZ2f0jE4last", "_ZGVZ2f0vE4last"),
        ("_ZZ2f0jE4last_0", "_ZZ2f0jjE4last_0"),
        ("_ZZN3BoxIiE3addEiE4last", "_ZZNK12_GLOBAL__N_13BoxIiE3addEijE4last"),
        ("_ZZ1fIiEvT_E4last", "_ZZ1fIiEiT_S0_E4last"),
        ("_ZZN1aC4EvE1n", "_ZZN1aC4EiE1n"),
        ("_ZZZ4mainENKUlvE_clEvE1n", "_ZZZ4mainENKUliE0_clEiE1n"),
        ("_ZZZ4mainENK3$_0clEvE1n", "_ZZZ4mainENK3$_1clEiE1n"),
    ],
)
def test_a_variable_is_called_alike_whatever_its_function_takes(name: str, same: str) -> None:
    assert key(name) == key(same) != ""


def test_variables_of_other_functions_are_called_otherwise() -> None:
    names = [
        "_ZZ2f0jE4last",
        "_ZZ2f1jE4last",
        "_ZZ2f0jE4next",
        "_ZGVZ2f0jE4last",
        "_ZZN1a2f0EjE4last",
        "_ZZ2f0jE4last_0",
        "_ZZ2f0jE6last_0",
        "_ZZ2f0IiEvT_E4last",
        "_ZZ2f0IlEvT_E4last",
    ]
    assert len({key(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["_Z2f0j", "_ZL5total", "last", "_ZZN1a1fEvEN1b1gEv", "_ZZ2f0jEs"])
def test_of_all_else_nothing_is_said(name: str) -> None:
    assert key(name) == ""


def test_what_cannot_be_read_is_not_certain() -> None:
    found = local_name("_ZZ2f0??jE4last")
    assert found is not None
    assert (found.variable, found.is_certain) == ("last", False)


@pytest.mark.parametrize(
    ("name", "is_code", "plain"),
    [
        ("_ZN12_GLOBAL__N_11fEi", True, "f(int)"),
        ("_Z1fi", True, "f(int)"),
        ("_ZN4shop12_GLOBAL__N_11fEi", True, "shop::f(int)"),
        ("_ZN12_GLOBAL__N_11a1fEi", True, ""),
        ("_ZN12_GLOBAL__N_11fENS_1aE", True, ""),
        ("_ZN12_GLOBAL__N_15totalE", False, "total"),
        ("_ZN12_GLOBAL__N_11a5totalE", False, "a::total"),
        ("total", False, "total"),
        ("f", True, ""),
        ("_ZTVN12_GLOBAL__N_11aE", False, ""),
    ],
)
def test_namespaces_without_a_name_do_not_count(name: str, is_code: bool, plain: str) -> None:
    assert without_unnamed(name, is_code) == plain


HIDDEN = (
    "namespace {\n"
    + STATIC.partition("namespace shop")[0]
    + "}\nnamespace shop"
    + STATIC.partition("namespace shop")[2]
)
HIDDEN = (
    HIDDEN.replace("static int total", "int total")
    .replace("static int f", "namespace { int f")
    .replace("++shop::sold; }", "++shop::sold; } }")
)
OF_HIDDEN = {
    "_ZL1fi": "_ZN12_GLOBAL__N_11fEi",
    "_ZL5total": "_ZN12_GLOBAL__N_15totalE",
    "_ZZL1fiE4last": "_ZZN12_GLOBAL__N_11fEiE4last",
    "_ZZL1fiE1c": "_ZZN12_GLOBAL__N_11fEiE1c",
    "_ZGVZL1fiE1c": "_ZGVZN12_GLOBAL__N_11fEiE1c",
}


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_what_is_in_a_namespace_without_a_name_is_paired(compiler: str, level: str) -> None:
    for plain in (STATIC, GLOBAL):
        before, after = graph(plain, compiler, level), graph(HIDDEN, compiler, level)
        marked = OF_HIDDEN if plain is STATIC else {{**NAMES, **VARIABLES}.get(o, o): n for o, n in OF_HIDDEN.items()}
        assert marked.items() <= pairs(before, after).items()
        assert {new: old for old, new in marked.items()}.items() <= pairs(after, before).items()


OF_MEMBERS = """
struct Box { int add(int x) { static int last; return last += x; } };
template <class T> struct Bag { int add(T x) { static int sum; return sum += x; } };
template <class T> int g(T x) { static int seen; return seen += x; }
int use(Box &b, Bag<int> &c, int x) {
    auto told = [](int y) { static int said; return said += y; };
    return b.add(x) + c.add(x) + g(x) + g('a') + told(x);
}
"""
OF_OTHER_MEMBERS = (
    OF_MEMBERS.replace("int add(int x)", "int add(int x) const")
    .replace("add(T x)", "add(T x, int y)")
    .replace("c.add(x)", "c.add(x, 1)")
    .replace("g(T x)", "g(T x, int y)")
    .replace("g(x)", "g(x, 1)")
    .replace("g('a')", "g('a', 1)")
    .replace("[](int y)", "[](int y, int z)")
    .replace("told(x)", "told(x, 1)")
)


@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_variables_of_templates_of_const_members_and_of_lambdas_are_paired(compiler: str) -> None:
    before, after = (graph(text, compiler, "-O0") for text in (OF_MEMBERS, OF_OTHER_MEMBERS))
    found = {old: new for old, new in pairs(before, after).items() if old.startswith("_ZZ") and "cl" not in old[-8:]}
    assert {local_name(old).variable for old in found if local_name(old)} == {"last", "sum", "seen", "said"}
    assert sum(old != new for old, new in found.items() if local_name(old)) == 5
    assert all(key(old) == key(new) for old, new in found.items())


def doubtful(old: str, new: str, declared: Declared) -> set[str]:
    one, other = graph(old, "g++", "-O0"), graph(new, "g++", "-O0")
    found = correlate(one, other, declared=declared)
    return {other.symbols.name[row] for row, _ in found.ambiguous}


OVERLOADS = """
inline int f(int x) { static int last; return last += x; }
inline int f(long x) { static int last; return last += x; }
"""


LAMBDA = """
template <class F> int once(F f, int x) {{ static int n = 100; n += f(x); return n; }}
int run(int x) {{ {more} return once([](int y) {{ return y; }}, x); }}
"""


@pytest.mark.parametrize("compiler", ["g++", "clang++-19"])
def test_of_instances_that_are_called_by_the_number_of_a_lambda_expression(compiler: str) -> None:
    def of(more: str) -> LinkGraph:
        return graph(LAMBDA.format(more=more), compiler, "-O0")

    def statics(found: LinkGraph) -> list[str]:
        return [name for name in found.symbols.name if name.startswith("_ZZ4once")]

    old, alone, both = of(""), of("[](int y) { return y * 2; }(x);"), of("once([](int y) { return y * 2; }, x);")
    # What has another number is the variable of before; of two it is either.
    assert pairs(old, alone)[statics(old)[0]] == statics(alone)[0]
    renewed = [name for name in both.symbols.name if "once" in name]
    found = correlate(old, both, renewed, declared=one)
    assert {both.symbols.name[row] for row, _ in found.ambiguous} == set(statics(both))
    assert len(statics(both)) == 2


def test_another_overload_that_is_used_now_may_have_been_there_before() -> None:
    old, new = OVERLOADS + "int use() { return f(1); }", OVERLOADS + "int use() { return f(1L); }"
    assert doubtful(old, new, lambda _: 2) == {"_ZZ1flE4last"}
    assert "_ZZ1fiE4last" not in pairs(graph(old, "g++", "-O0"), graph(new, "g++", "-O0"), lambda _: 2)


def test_what_is_not_known_of_the_source_is_in_doubt() -> None:
    more = STATIC.replace("int f(int x)", "int f(int x, int y)").replace("f(x)", "f(x, 5)").replace("(x + 1)", "(x, 7)")
    more = more.replace("int (*kept)(int)", "int (*kept)(int, int)")
    assert doubtful(STATIC, more, lambda _: -1) == {"_ZZL1fiiE1c", "_ZZL1fiiE4last"}
    assert doubtful(STATIC, more, one) == set()


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
    assert "_ZZL1fiE4last" not in pairs(graph(two, "g++", "-O0"), graph(changed, "g++", "-O0"), lambda _: 2)
    assert doubtful(two, changed, {"last": 2, "c": 1}.__getitem__) == {"_ZZL1fcE4last", "_ZZL1ficE4last"}
