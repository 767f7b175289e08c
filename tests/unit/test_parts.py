"""Parts of static variables, as clang makes them, are known by their place in the variable, whatever their number."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from objects_from_c import SECTIONS, compiled

from ipbp.formats.elf_object import read_object
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.parts import pair_parts, unknown_parts
from ipbp.stages.compare import Status, compare
from ipbp.stages.correlate import correlate

STATIC = "static unsigned t[3] = {5, 6, 7};\n"
FIRST = "unsigned f(unsigned x) { t[0] += x; t[1] ^= x * 3; return t[0] ^ t[1]; }\n"
ALL = "unsigned g(unsigned x) { t[1] += t[0]; t[2] ^= x; return t[2]; }\n"
LAST = FIRST.replace("t[1]", "t[2]").replace("t[0]", "t[1]")
LOCAL = "unsigned h(unsigned x) { static unsigned t[2]; t[0] += x; t[1] ^= t[0]; return t[1]; }\n"


def graph(source: str, *flags: str) -> LinkGraph:
    return read_object(compiled(source, "clang-19", ("-O1", *flags, *SECTIONS)), "unit.c")


def named(old: LinkGraph, new: LinkGraph) -> dict[str, str]:
    pairs = pair_parts(old, new, "unit.c").symbol
    return {new.symbols.name[row]: old.symbols.name[known] if known >= 0 else "" for row, known in pairs.items()}


@pytest.mark.parametrize("version", ["-gdwarf-5", "-gdwarf-4"])
def test_a_part_is_the_one_at_its_place_and_not_of_its_number(version: str) -> None:
    old, new = graph(STATIC + FIRST + ALL, version), graph(STATIC + LAST, version)
    assert named(old, new) == {"t.0": "t.1", "t.1": "t.2"}


def test_of_an_object_without_its_debug_information_the_other_file_tells(clang: str, tmp_path: Path) -> None:
    sides = []
    for name, source in (("old", STATIC + FIRST + ALL), ("new", STATIC + LAST)):
        (tmp_path / f"{name}.c").write_text(source)
        words = [clang, "-O1", "-g", "-gsplit-dwarf", *SECTIONS, "-c", f"{name}.c", "-o", f"{name}.o"]
        subprocess.run(words, cwd=tmp_path, check=True)
        sides.append(read_object((tmp_path / f"{name}.o").read_bytes(), f"{name}.c"))
    assert named(*sides) == {"t.0": "t.1", "t.1": "t.2"}
    (tmp_path / "old.dwo").unlink()
    assert named(*sides) == {}


def test_code_that_uses_other_parts_by_the_same_bytes_has_changed() -> None:
    """`f` is the same machine code, and each symbol of the new object has a namesake in the old one."""
    old, new = graph(STATIC + FIRST + ALL, "-g"), graph(STATIC + LAST + ALL.replace("t[0]", "t[2]"), "-g")
    found = correlate(old, new, parts=pair_parts(old, new, "unit.c").symbol)
    changed = compare(old, new, found).status == Status.CHANGED
    assert "f" in {new.block_name(block) for block in range(len(new.blocks)) if changed[block]}


def test_variables_of_one_name_in_several_functions_are_told_apart() -> None:
    source = STATIC + FIRST + ALL + LOCAL
    old, new = graph(source, "-g"), graph(LOCAL + STATIC + ALL + FIRST, "-g")
    assert named(old, new) == {
        f"{name}.{n}": f"{name}.{n}" for name, count in (("t", 3), ("h.t", 2)) for n in range(count)
    }
    found = correlate(old, new, parts=pair_parts(old, new, "unit.c").symbol)
    assert found.ambiguous == ()


def test_of_a_function_that_was_inlined_everywhere_before_they_are_known() -> None:
    """clang's entry for it has no name then."""
    once = "static " + LOCAL + "unsigned use(unsigned x) { return h(x); }\n"
    old, new = graph(once, "-g"), graph(once.replace("static unsigned h", "__attribute__((noinline)) unsigned h"), "-g")
    assert "h" not in old.symbols.name
    assert named(old, new) == {"h.t.0": "h.t.0", "h.t.1": "h.t.1"}


def test_a_part_that_the_old_program_left_out_is_refused() -> None:
    old, new = graph(STATIC + FIRST, "-g"), graph(STATIC + LAST, "-g")
    assert named(old, new) == {"t.0": "t.1", "t.1": ""}
    assert [row.code for row in pair_parts(old, new, "unit.c").refusals] == ["variable-split"]


def refused(old: LinkGraph, new: LinkGraph) -> dict[str, str]:
    """What is refused of an edit on account of its parts, and in which words."""
    known = pair_parts(old, new, "unit.c")
    found = compare(old, new, correlate(old, new, parts=known.symbol))
    rows = (*known.refusals, *unknown_parts(known, new, found, "unit.c"))
    assert {row.code for row in rows} <= {"variable-split"}
    return {str(row.symbol): row.fact for row in rows}


def test_without_debug_information_a_changed_function_may_not_use_them() -> None:
    old, new = graph(STATIC + FIRST), graph(STATIC + LAST)
    assert named(old, new) == {}
    assert refused(old, new).keys() == set()  # the same bytes and the same names: that cannot be seen
    assert refused(old, graph(STATIC + LAST.replace("x * 3", "x * 5"))).keys() == {"t.0", "t.1"}
    more = "unsigned other(unsigned x) { return x * %d; }\n"
    assert refused(graph(STATIC + FIRST + more % 3), graph(STATIC + FIRST + more % 5)) == {}


CALLED = "int f(int x%s) { static int pair[2]; pair[0] += x; pair[1] ^= pair[0]; return pair[1]; }\n"


def test_the_parts_of_a_function_that_takes_something_else_are_the_same_ones() -> None:
    old, new = (
        read_object(compiled(CALLED % more, "clang++-19", ("-xc++", "-O1", "-g", *SECTIONS)), "unit.cc")
        for more in ("", ", int y")
    )
    endings = ("E4pair.0", "E4pair.1")
    pairs = pair_parts(old, new, "unit.cc", lambda _variable: 1)
    names = {new.symbols.name[row]: old.symbols.name[known] for row, known in pairs.symbol.items()}
    assert names == {f"_ZZ1fii{ending}": f"_ZZ1fi{ending}" for ending in endings}
    found = correlate(old, new, parts=pairs.symbol, declared=lambda _variable: 1)
    assert found.ambiguous == ()
    assert pairs.refusals == ()
    # The source declares more of them than the object has: it may be another function's.
    several = pair_parts(old, new, "unit.cc", lambda _variable: 2)
    assert several.symbol == {}
    doubtful = correlate(old, new, parts=several.symbol, declared=lambda _variable: 2).ambiguous
    assert {new.symbols.name[row] for row, _ in doubtful} == set(names)
