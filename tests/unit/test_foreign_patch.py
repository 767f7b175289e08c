"""An edit of a Mach-O or COFF program becomes the same machine code in memory that a fresh build would run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_formats import TARGETS, Emulated, compiled, graph_of, linked

from ipbp.cli.diff import diff
from ipbp.graph.model import BlockKind
from ipbp.stages.compare import Status, compare
from ipbp.stages.correlate import correlate

SOURCE = """
extern int helper(int); extern int shared;
static int calls; static int limits[4] = {1, 2, 3, 4}; const char *const names[] = {"red", "green", "blue"};
static int seen[8]; int zeroed; double ratio = 2.5;
__attribute__((noinline)) static int twice(int x) { static int inner; inner++; return 2 * x + inner; }
__attribute__((noinline)) int untouched(int x) { return x + limits[x & 3]; }
int (*const table[])(int) = {twice, untouched, helper};
__attribute__((weak)) int weakly(int x) { return x + 1; }
__attribute__((noinline)) int pick(int x) {
  switch (x) { case 0: return helper(1); case 1: zeroed = 3; break; case 2: return twice(x); case 3: return 99;
  case 4: shared = 1000; break; case 5: shared += 7; break; case 6: return table[x & 1](4); } return names[x & 1][0];
}
__attribute__((noinline)) int work(int x) { calls++; seen[x & 7] = x; return WORK; }
int count(void) { return calls; }
int start(int x) { return work(x) + pick(x) + untouched(x) + weakly(x) + (int)(ratio * x); }
"""
OTHER = "int shared = 5; int helper(int x) { return x * 3; } int _fltused;"
BEFORE = "twice(x) + limits[1]"
AFTER = "twice(x) * 1000 + limits[2] + helper(x) + shared + names[2][1] + table[1](x) + (int)(ratio * 4.0 + 0.125)"
targets = pytest.mark.parametrize("kind", TARGETS)
levels = pytest.mark.parametrize("level", ["-O0", "-O2"])


@levels
@targets
def test_new_code_runs_and_state_stays(kind: str, level: str, clang: str, tmp_path: Path) -> None:
    target = TARGETS[kind]
    objects = [
        compiled(tmp_path, clang, target, SOURCE, level, f"-DWORK={work}", name=name)
        for name, work in (("old.c", BEFORE), ("new.c", AFTER))
    ]
    other = compiled(tmp_path, clang, target, OTHER, level, name="other.c")
    image = linked(target, [objects[0], other], tmp_path / "program", "start")
    program, is_msvc = Emulated(image), not target.is_macho
    assert program.call("work", 10, is_msvc=is_msvc) == 2 * 10 + 1 + 2
    assert program.call("count", is_msvc=is_msvc) == 1

    old, new = map(graph_of, objects)
    patch = program.patch(old, new)
    assert patch.codes == set()
    assert {row.name for row in patch.replacements} == {"work"}
    program.apply(patch)

    expected = (2 * 10 + 2) * 1000 + 3 + 30 + 5 + ord("l") + (10 + 3) + 10
    assert program.call("work", 10, is_msvc=is_msvc) == expected
    assert program.call("count", is_msvc=is_msvc) == 2
    assert program.call("untouched", 2, is_msvc=is_msvc) == 5
    assert program.call("pick", 5, is_msvc=is_msvc) == ord("g")
    assert program.number("shared") == 12

    again = program.patch(
        old, graph_of(compiled(tmp_path, clang, target, SOURCE, level, "-DWORK=-calls", name="third.c"))
    )
    program.apply(again)
    assert program.call("work", 3, is_msvc=is_msvc) == -3


@levels
@targets
def test_an_object_is_not_different_from_itself(kind: str, level: str, clang: str, tmp_path: Path) -> None:
    target = TARGETS[kind]
    objects = [
        compiled(tmp_path, clang, target, SOURCE, level, f"-DWORK={BEFORE}", *sections, name=f"{number}.c")
        for number, sections in enumerate(((), ("-ffunction-sections", "-fdata-sections")))
    ]
    other = compiled(tmp_path, clang, target, OTHER, level, name="other.c")
    program = Emulated(linked(target, [objects[0], other], tmp_path / "program", "start"))
    for path in objects if target.is_macho else objects[:1]:
        patch = program.patch(graph_of(objects[0]), graph_of(path))
        assert set(patch.comparison.reason.values()) == set()
        assert patch.replacements == ()


@targets
def test_diff_says_what_changed(kind: str, clang: str, tmp_path: Path) -> None:
    target = TARGETS[kind]
    old, new = (
        compiled(tmp_path, clang, target, SOURCE, "-O1", f"-DWORK={work}", name=name)
        for name, work in (("old.c", BEFORE), ("new.c", AFTER))
    )
    assert [(row.name, row.status) for row in diff(old, new).functions] == [("work", "changed")]
    assert diff(old, old).functions == ()


CATCHES = """
struct A { int a; }; struct B { int b; }; void throws(int);
int first(int x) { try { throws(x); } catch (FIRST &) { return 1; } return 0; }
int second(int x) { try { throws(x); } catch (SECOND &) { return 1; } return 0; }
int third(int x) { return x + 1; }
"""


@levels
@targets
def test_a_function_that_catches_something_else_has_changed(kind: str, level: str, clang: str, tmp_path: Path) -> None:
    flags = (level, "-fcxx-exceptions", "-fexceptions")
    graphs = [
        graph_of(compiled(tmp_path, clang, TARGETS[kind], CATCHES, *flags, *caught, name=f"{number}.cc"))
        for number, caught in enumerate((("-DFIRST=A", "-DSECOND=B"), ("-DFIRST=B", "-DSECOND=A")))
    ]
    for old, new, expected in ((0, 1, {"first", "second"}), (0, 0, set[str]())):
        found = compare(graphs[old], graphs[new], correlate(graphs[old], graphs[new]))
        code = np.flatnonzero((found.status != Status.SAME) & (graphs[new].blocks.kind == BlockKind.CODE))
        # With MSVC's ABI a handler is a function of its own.
        names = " ".join(graphs[new].block_name(block) for block in code.tolist())
        assert {name for name in ("first", "second", "third") if name in names} == expected
