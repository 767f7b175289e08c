"""Static variables are paired by who uses them, never by the number that the compiler gave them."""

from __future__ import annotations

import numpy as np
import pytest
from objects_from_c import COMPILERS, SECTIONS, VARIANT_NAMES, VARIANTS, Pair, graph_of, pairs

from ipbp.graph.unit import UNBOUND
from ipbp.pipeline.layouts import types_of_object
from ipbp.pipeline.owned_statics import pair_by_function
from ipbp.stages.compare import Status
from ipbp.stages.correlate import correlate
from ipbp.stages.moved import empty_side
from ipbp.stages.name_numbers import base_name, is_numbered
from ipbp.stages.select import OldSide

variants = pytest.mark.parametrize(("compiler", "flags"), VARIANTS, ids=VARIANT_NAMES)

TWO = """
int put(int);
int first(int x) { static int count = 3; count += x; put(count); return count; }
int second(int x) { static int count = 7; count -= x; return put(count * 2); }
"""


def user_of(graph, name: str) -> set[str]:
    """Names of the blocks that refer to a symbol's block."""
    home = graph.symbols.block[graph.symbols.name.index(name)]
    rows = graph.symbols.block[graph.edges.target] == home
    return {graph.block_name(int(block)) for block in graph.edges.block[rows]}


def statics(graph) -> list[str]:
    return [name for name in graph.symbols.name if base_name(name).endswith("count") and name]


@variants
def test_a_renumbered_static_keeps_its_counterpart_by_its_user(compiler: str, flags: tuple[str, ...]) -> None:
    third = "int third(int x) { static int count = 9; return put(count ^= x); }\n"
    for source in (third + TWO, TWO.replace("int second", third + "int second"), TWO + third):
        for pair in pairs(TWO, source.replace("int put(int);", "") and "int put(int);" + source, compiler, flags):
            paired = {name: pair.counterpart(name) for name in statics(pair.new)}
            assert len(paired) == 3
            for name, before in paired.items():
                if before is None:
                    assert user_of(pair.new, name) == {"third"}
                else:
                    assert user_of(pair.new, name) == user_of(pair.old, before)
            assert pair.correlation.ambiguous == ()
            assert pair.named(Status.CHANGED) == set()


@variants
def test_two_statics_of_one_name_are_not_mixed_up_when_a_function_goes(compiler: str, flags: tuple[str, ...]) -> None:
    only = "\n".join(line for line in TWO.splitlines() if "int first" not in line)
    for pair in pairs(TWO, only, compiler, flags):
        (name,) = statics(pair.new)
        before = pair.counterpart(name)
        assert before is not None
        assert user_of(pair.old, before) == {"second"}
        assert pair.removed == {"first"} | {n for n in statics(pair.old) if n != before}


@variants
def test_a_static_moved_to_another_function_is_another_variable(compiler: str, flags: tuple[str, ...]) -> None:
    old = """int put(int); int a(int x) { static int count; return put(count += x); } int b(int x) { return put(x); }"""
    new = """int put(int); int a(int x) { return put(x); } int b(int x) { static int count; return put(count += x); }"""
    for pair in pairs(old, new, compiler, flags):
        (name,) = statics(pair.new)
        assert pair.counterpart(name) is None


@variants
def test_a_static_in_a_changed_function_keeps_its_counterpart(compiler: str, flags: tuple[str, ...]) -> None:
    for pair in pairs(TWO, TWO.replace("put(count);", "put(1); put(count + 1); count++;"), compiler, flags):
        for name in statics(pair.new):
            before = pair.counterpart(name)
            assert before is not None
            assert user_of(pair.new, name) == user_of(pair.old, before)


@variants
def test_a_second_static_of_one_name_in_one_function_is_new(compiler: str, flags: tuple[str, ...]) -> None:
    old = "int put(int); int f(int x) { put(1); { static int count; put(count += x); } put(3); return 0; }"
    new = old.replace("put(3);", "put(3); { static int count; put(5); put(count ^= x); }")
    for pair in pairs(old, new, compiler, flags):
        counterparts = [pair.counterpart(name) for name in statics(pair.new)]
        assert sorted(name is None for name in counterparts) == [False, True]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_static_of_a_function_that_is_inlined_on_one_side_is_found_through_its_callers(compiler: str) -> None:
    source = """
    int put(int);
    static {0} int step(int x) {{ static int count; count += x; return count; }}
    int one(int x) {{ return put(step(x) + 1); }}
    int two(int x) {{ return put(step(x) + 2); }}
    """
    inlined = source.format("__attribute__((always_inline)) inline")
    called = source.format("__attribute__((noinline))")
    for old, new in ((inlined, called), (called, inlined)):
        for pair in pairs(old, new, compiler, ("-O2", "-fPIE")):
            (name,) = statics(pair.new)
            assert pair.counterpart(name) in statics(pair.old)


def test_statics_that_cannot_be_told_apart_are_reported_and_not_guessed() -> None:
    old = "int f(void) { { static int count; count++; } { static int count; count++; } return 0; }"
    new = "int f(void) { { static int count; count++; } return 0; }"
    pair = pairs(old, new, "gcc", ("-O0", "-fPIE"))[3]
    (name,) = statics(pair.new)
    found = pair.counterpart(name)
    ambiguous = {pair.new.symbols.name[row]: olds for row, olds in pair.correlation.ambiguous}
    assert found is None
    assert len(ambiguous[name]) == 2


@variants
def test_compiler_numbered_constants_are_paired_by_content(compiler: str, flags: tuple[str, ...]) -> None:
    source = """
    int put(const char *);
    int two(int x) { static const int table[] = {4, 5, 6, 7, 8}; put(__func__); return table[x]; }
    int three(int x) { static const int table[] = {9, 8, 7, 6, 5}; put(__func__); return table[x]; }
    """
    zero = "int zero(int x) { static const int table[] = {1, 1, 2, 3, 5}; put(__func__); return table[x]; }\n"
    for pair in pairs(source, source.replace("int two", zero + "int two"), compiler, flags):
        assert pair.named(Status.CHANGED) == set()
        assert "zero" in pair.named(Status.NEW)
        assert not {"two", "three"} & pair.named(Status.NEW)


@pytest.mark.parametrize("flags", [(), SECTIONS])
def test_a_constant_is_not_the_one_that_had_its_name_in_a_mergeable_section(flags: tuple[str, ...], clang: str) -> None:
    # clang puts eight words into .rodata.cst32, where six have no place; the first one has the plain name.
    eight = "{ static const unsigned t[] = {524, 183, 897, 114, 250, 362, 238, 919}; acc += t[acc % 8]; }"
    six = "{ static const unsigned t[] = {579, 874, 94, 356, 937, 899}; acc += t[acc % 6]; }"
    function = "unsigned f(unsigned acc) {{ {} return acc; }}"
    before, after = function.format(eight), function.format(six + eight)
    for old, new in ((before, after), (after, before), (function.format(six), before), (before, function.format(six))):
        for pair in pairs(old, new, clang, ("-O1", *flags)):
            for name in pair.new.symbols.name:
                if base_name(name) == "f.t":
                    counterpart = pair.counterpart(name)
                    assert counterpart is None or content(pair.old, counterpart) == content(pair.new, name)


def content(graph, name: str) -> bytes:
    return bytes(graph.content(int(graph.symbols.block[graph.symbols.name.index(name)])))


def test_clones_belong_to_their_function() -> None:
    source = """
    int put(int);
    __attribute__((noinline)) static int work(int a, int b) { return put(a * b) + put(a + b) + put(a - b); }
    int f(int x) { return work(x, 5); }
    int g(int x) { return work(x + 1, 5) + put(3); }
    """
    for pair in pairs(source, source.replace("a - b", "a ^ b"), "gcc", ("-O2", "-fPIE")):
        (clone,) = [name for name in pair.new.symbols.name if "constprop" in name]
        assert pair.counterpart(clone) == clone
        assert pair.named(Status.CHANGED, Status.NEW) == {clone}


def test_a_local_function_that_becomes_global_keeps_its_counterpart() -> None:
    source = "__attribute__((noinline)) {} int f(int x) {{ return x * 7; }} int g(int x) {{ return f(x) + 1; }}"
    for pair in pairs(source.format("static"), source.format(""), "gcc", ("-O1", "-fPIE")):
        assert pair.counterpart("f") == "f"


@pytest.mark.parametrize(
    ("name", "base", "numbered"),
    [
        ("count.0", "count", True),
        ("helper.count", "helper.count", False),
        ("helper.count.1", "helper.count", True),
        ("f.constprop.0.isra.0", "f.constprop.isra", True),
        ("f.part.0.cold", "f.part.cold", True),
        ("f.cold", "f.cold", False),
        ("f.llvm.1234567890", "f", True),
        ("plain", "plain", False),
        ("v1.2e", "v1.2e", False),
    ],
)
def test_compiler_numbers_are_taken_off_names(name: str, base: str, numbered: bool) -> None:
    assert (base_name(name), is_numbered(name)) == (base, numbered)


@pytest.mark.parametrize("before", [(), SECTIONS], ids=["one section", "sections"])
def test_clones_are_told_apart_by_who_calls_them(before: tuple[str, ...]) -> None:
    source = (
        "static __attribute__((noinline)) int f(int x, int mode) { int sum = 0;"
        " for (int i = 0; i < x; i++) sum += mode == 1 ? i : i * i; return sum; }\n"
        "int one(int x) { return f(x, 1) + 1; } int two(int x) { return f(x, 2) + 2; }\n"
    )
    pair = Pair(graph_of(source, "gcc", ("-O3", *before)), graph_of(source, "gcc", ("-O3", *SECTIONS)))
    assert sum("constprop" in name for name in pair.new.symbols.name) == 2
    assert pair.named(Status.NEW, Status.CHANGED) == set()
    assert pair.removed == set()


def test_what_is_new_to_the_process_pairs_with_nothing() -> None:
    graph = graph_of('static int count; const char *f(int x) { count += x; return "text"; }', "gcc", ("-O2",))
    pair = Pair(empty_side(graph).graph, graph)
    assert (pair.correlation.block < 0).all()
    assert (pair.correlation.symbol < 0).all()
    assert pair.named(Status.NEW) >= {"f", "count"}


EXCHANGED = """
int put(int);
static {0} int one(int x) {{ static short count = 32; count += put(x); return count + 7; }}
static {1} int other(int x) {{ static short count = 1; count += put(x); return count * 3; }}
int entry(int x) {{ return one(x) + put(other(x)); }}
"""
INLINED, CALLED = "__attribute__((always_inline)) inline", "__attribute__((noinline))"


def _exchanged_inlining(*flags: str) -> Pair:
    """One function is inlined in the place of another of which a variable has the same name."""
    old, new = EXCHANGED.format(INLINED, CALLED), EXCHANGED.format(CALLED, INLINED)
    return Pair(graph_of(old, "gcc", ("-O2", *flags)), graph_of(new, "gcc", ("-O2", *SECTIONS, *flags)))


def test_a_static_is_not_that_of_a_function_whose_place_its_own_took() -> None:
    pair = _exchanged_inlining()
    assert len(pair.correlation.ambiguous) == 2
    assert {pair.counterpart(name) for name in statics(pair.new)} == {None}


def test_debug_information_tells_of_which_function_a_static_is() -> None:
    pair = _exchanged_inlining("-g")
    sides = types_of_object(pair.old), types_of_object(pair.new)
    nowhere = np.full(len(pair.old.symbols), UNBOUND, dtype=np.int64)
    old = OldSide(pair.old, nowhere, np.ones(len(pair.old.blocks), dtype=bool), {})
    known = pair_by_function(old, pair.new, sides, None)
    assert len(known) == 2
    for row, before in known.items():  # each begins with another value
        home = pair.new.symbols.block[row], pair.old.symbols.block[before]
        place = pair.new.symbols.offset[row], pair.old.symbols.offset[before]
        first, second = (
            bytes(g.content(int(b)))[int(o) :][:2] for g, b, o in zip((pair.new, pair.old), home, place, strict=True)
        )
        assert first == second
    found = correlate(pair.old, pair.new, parts=known)
    assert {row: int(found.symbol[row]) for row in known} == known
    assert found.ambiguous == ()
    assert pair_by_function(old, pair.new, None, None) == {}
