"""What debug information says of types, read from real objects, and what a change of it means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from running_program import compile_object, graph_of

from ipbp.formats.debug_types import types_of_file, types_of_graph
from ipbp.graph.types import DebugTypes, Part, TypeLayout
from ipbp.stages.type_changes import type_changes

SOURCE = """
struct Point { int x; long y; };
union Either { int i; double d; };
enum Colour { RED, BLUE = 5 };
typedef int Number;
struct Grid { int cell[2][3]; struct Point corner[4]; } grid;
struct Point place; union Either either; enum Colour colour; Number number;
int main(void) { return place.x; }
"""


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_sizes_and_places_are_those_of_the_compiler(tmp_path: Path, clang: str, compiler: str, version: str) -> None:
    cc = clang if compiler == "clang" else "gcc"
    types = types_of_graph(graph_of(compile_object(tmp_path, "types", SOURCE, f"-gdwarf-{version}", cc=cc)))
    (point,) = types.layouts["Point"]
    assert point.size == 16
    assert [(part.name, part.offset) for part in point.parts] == [("x", 0), ("y", 8)]
    (colour,) = types.layouts["Colour"]
    assert {(part.name, part.value) for part in colour.parts} == {("RED", 0), ("BLUE", 5)}
    (grid,) = types.layouts["Grid"]
    assert [part.type for part in grid.parts] == ["[[int; 3]; 2]", "[Point; 4]"]
    (either,) = types.layouts["Either"]
    assert {part.offset for part in either.parts} == {0}


def test_a_linked_program_says_the_same(tmp_path: Path) -> None:
    from running_program import build

    program, objects = build(tmp_path, {"types": SOURCE}, "-g")
    assert types_of_file(str(program)).layouts["Point"] == types_of_graph(graph_of(objects["types"])).layouts["Point"]


def types(functions: dict[str, str] | None = None, **layouts: TypeLayout) -> DebugTypes:
    named = {name.replace("__", "::"): frozenset([layout]) for name, layout in layouts.items()}
    return DebugTypes(named, functions or {}, {})


def closures(*captured: str) -> DebugTypes:
    """A function `a::f` with closures that capture a number of these names, or nothing."""
    layouts = {
        f"a::f::{{closure_env#{number}}}": frozenset([TypeLayout(8 if name else 0, _captures(name))])
        for number, name in enumerate(captured)
    }
    functions = {f"c{number}": f"a::f::{{closure#{number}}}" for number in range(len(captured))}
    functions |= {f"m{number}": f"map<u8, a::f::{{closure_env#{number}}}>" for number in range(len(captured))}
    return DebugTypes(layouts, {**functions, "f": "a::f", "g": "a::g"}, {})


def _captures(name: str) -> tuple[Part, ...]:
    return (Part(name, 0, "u64"),) if name else ()


PAIR = TypeLayout(16, (Part("x", 0, "u64"), Part("y", 8, "u64")))


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (TypeLayout(24, (*PAIR.parts, Part("z", 16, "u64"))), "'z' is new, it had 16 bytes and has 24"),
        (TypeLayout(16, (Part("x", 8, "u64"), Part("y", 0, "u64"))), "'x' moved, 'y' moved"),
        (TypeLayout(16, (Part("x", 0, "i64"), Part("y", 8, "u64"))), "'x' was u64 and is i64"),
        (TypeLayout(8, (Part("x", 0, "u64"),)), "'y' is gone, it had 16 bytes and has 8"),
    ],
)
def test_a_changed_layout_is_refused_in_words_unless_it_is_allowed(after: TypeLayout, words: str) -> None:
    (refusal,) = type_changes(types(a__Pair=PAIR), types(a__Pair=after), "a.rs").refusals
    assert (refusal.code, refusal.symbol) == ("layout-changed", "a::Pair")
    assert words in refusal.fact
    assert not type_changes(types(a__Pair=PAIR), types(a__Pair=after), "a.rs", ["a::Pair"]).refusals
    assert not type_changes(types(a__Pair=PAIR), types(a__Pair=after), "a.rs", ["all"]).refusals


def test_only_the_cause_is_named_and_not_what_holds_it() -> None:
    larger = TypeLayout(24, (*PAIR.parts, Part("z", 16, "u64")))
    old = types(a__Pair=PAIR, a__Holder=TypeLayout(16, (Part("pair", 0, "a::Pair"),)))
    new = types(a__Pair=larger, a__Holder=TypeLayout(24, (Part("pair", 0, "a::Pair"),)))
    assert [refusal.symbol for refusal in type_changes(old, new, "a.rs").refusals] == ["a::Pair"]


def test_new_and_removed_types_are_no_change() -> None:
    assert not type_changes(types(a__Old=PAIR), types(a__New=PAIR), "a.rs").refusals


def test_a_static_of_another_type_is_refused_though_its_mangled_name_is_new() -> None:
    old = DebugTypes({}, {}, {"_ZN1a5COUNT17h1E": ("a::COUNT", "u64")})
    new = DebugTypes({}, {}, {"_ZN1a5COUNT17h2E": ("a::COUNT", "i64")})
    (refusal,) = type_changes(old, new, "a.rs").refusals
    assert (refusal.code, refusal.symbol) == ("variable-type-changed", "a::COUNT")


def test_equal_closures_are_the_old_ones() -> None:
    found = type_changes(closures("tax", ""), closures("tax", ""), "a.rs")
    assert not found.renewed
    assert not found.notes


def test_a_closure_that_captures_something_else_is_new_with_all_that_was_made_for_it() -> None:
    found = type_changes(closures("tax", ""), closures("discount", ""), "a.rs")
    assert found.renewed == {"c0", "m0"}
    assert not found.refusals
    assert "a::f" in found.notes[0]


def test_all_closures_of_a_function_are_new_when_it_has_more_of_them() -> None:
    assert type_changes(closures(""), closures("", ""), "a.rs").renewed == {"c0", "m0", "c1", "m1"}


def test_closures_that_capture_the_same_are_told_apart_by_their_code() -> None:
    def by_code(before: str, after: str) -> set[str]:
        """`before` and `after`: a letter for the code of each closure."""

        def likeness(one: Sequence[str], other: Sequence[str]) -> float:
            same = [before[int(name[1])] for name in one] == [after[int(name[1])] for name in other]
            return 1.0 if same else 0.5

        captured = ["tax"] * len(before)
        return set(type_changes(closures(*captured), closures(*captured), "a.rs", (), likeness).renewed)

    assert not by_code("ab", "ab")
    assert not by_code("ab", "ac"), "the other one is what it was"
    assert by_code("ab", "ba") == {"c0", "m0", "c1", "m1"}
    assert by_code("abc", "cbd") == {"c0", "m0", "c2", "m2"}


def test_a_future_that_keeps_a_closure_which_is_another_now_is_refused() -> None:
    held = TypeLayout(8, (Part("rule", 0, "a::f::{closure_env#0}"),))
    old, new = closures("tax"), closures("discount")
    layouts = {
        "a::g::{async_fn_env#0}": frozenset([TypeLayout(8, ())]),
        "a::g::{async_fn_env#0}::Suspend0": frozenset([held]),
    }
    (refusal,) = type_changes(
        DebugTypes({**old.layouts, **layouts}, old.functions, {}),
        DebugTypes({**new.layouts, **layouts}, new.functions, {}),
        "a.rs",
    ).refusals
    assert (refusal.code, refusal.symbol) == ("layout-changed", "a::g::{async_fn_env#0}")
    assert "a::f::{closure_env#0}" in refusal.fact


def test_a_function_that_takes_something_else_is_new() -> None:
    old = DebugTypes({}, {"f": "a::f", "g": "a::g"}, {}, {"f": "(u64) -> ()", "g": "() -> ()"})
    new = DebugTypes({}, {"f": "a::f", "g": "a::g"}, {}, {"f": "(u64, u64) -> ()", "g": "() -> ()"})
    found = type_changes(old, new, "a.rs")
    assert found.renewed == {"f"}
    assert "'a::f' was (u64) -> () and is (u64, u64) -> ()" in found.notes[0]


def test_debug_information_of_lines_alone_tells_no_types() -> None:
    assert not DebugTypes({}, {"f": "a::f"}, {}, {"f": "() -> ()"}).tells_types
    assert DebugTypes({}, {"f": "a::f"}, {}, {"f": "(u64) -> ()"}).tells_types
    assert closures("tax").tells_types
