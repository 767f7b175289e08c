"""Where a linker or the compiler made one function of several, an edit of one of them reaches no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_program import WAIT, build, compile_object, graph_of, running

from ipbp.errors import Refusal
from ipbp.pipeline.ahead import Ahead
from ipbp.pipeline.old_side import attested_side, lifted_side
from ipbp.stages.compare import compare
from ipbp.stages.copies import Copies
from ipbp.stages.correlate import correlate
from ipbp.stages.select import OldSide, Replaced, Selection, select
from ipbp.stages.shared_entry import one_jump_each

PAIR = """
__attribute__((noinline)) int one(int n) { return n * 7 - 3; }
__attribute__((noinline)) int other(int n) { return n * 7 - 3; }
__attribute__((noinline)) static int own(int n) { return n * 9 - 4; }
int use(int n) { return one(n) + other(n + 1) + own(n); }
"""
STATIC = PAIR.replace("int one", "static int one").replace("int other", "static int other")
AWAY = """
__attribute__((noinline)) static int own(int n) { return n * 9 - 4; }
int away(int n) { return own(n) * 2; }
"""
MAIN = WAIT + "int use(int); int away(int);\nint main(void) { use(1); away(2); ready_and_wait(); return 0; }\n"
SOURCES = {"main": MAIN, "pair": PAIR, "away": AWAY}
FOLDING = ["lld", "gold", "mold"]
ONE = ("n * 7 - 3", "n * 7 - 4", 1)
BOTH = ("n * 7 - 3", "n * 7 - 4", 2)
OWN = ("n * 9 - 4", "n * 9 - 5", 1)


def judged(
    folder: Path, sources: dict[str, str], edit: tuple[str, str, int], cc: str, link: list[str], lifted: bool
) -> tuple[Selection, tuple[Replaced, ...], tuple[Refusal, ...]]:
    """`pair.c` edited: its selection, the jumps that are written, and the refusals."""
    flags = ("-O2", "-ffunction-sections")
    program, objects = build(folder, sources, *flags, cc=cc, link=link)
    new = graph_of(compile_object(folder, "pair-new", sources["pair"].replace(*edit), *flags, cc=cc))
    with running(program) as process:
        image, old_sides = process.image(), []
        for name in ("pair", "away"):
            graph = graph_of(objects[name])
            side = (
                lifted_side(graph, image, process.read)
                if lifted
                else attested_side(graph, image, process.read, Ahead())[0]
            )
            old_sides.append(side)
        selection = selected(new, old_sides[0])
        replaced, refusals = one_jump_each([selection], old_sides, image)
    return selection, replaced[0], refusals


def selected(new, old: OldSide) -> Selection:
    correlation = correlate(old.graph, new)
    return select("pair.c", new, old, Copies(correlation, compare(old.graph, new, correlation)))


@pytest.mark.parametrize("lifted", [False, True], ids=["object", "image"])
@pytest.mark.parametrize("linker", FOLDING)
def test_folded_functions_are_patched_alike_or_not_at_all(
    linker: str, lifted: bool, clang: str, tmp_path: Path
) -> None:
    link = [f"-fuse-ld={linker}", "-Wl,--icf=all"]
    selection, replaced, refusals = judged(tmp_path / "one", SOURCES, ONE, clang, link, lifted)
    assert [row.name for row in selection.replaced] == ["one"]
    assert [(row.code, row.symbol) for row in refusals] == [("entry-shared", "one")]
    assert "'other'" in refusals[0].fact

    selection, replaced, refusals = judged(tmp_path / "both", SOURCES, BOTH, clang, link, lifted)
    assert {row.name for row in selection.replaced} == {"one", "other"}
    assert len(replaced) == 1
    assert not refusals


def test_a_function_folded_with_that_of_another_file_is_refused(clang: str, tmp_path: Path) -> None:
    link = ["-fuse-ld=lld", "-Wl,--icf=all"]
    _selection, _replaced, refusals = judged(tmp_path, SOURCES, OWN, clang, link, lifted=False)
    assert [(row.code, row.symbol) for row in refusals] == [("entry-shared", "own")]


@pytest.mark.parametrize("sources", [PAIR, STATIC], ids=["global", "static"])
def test_what_is_not_folded_is_patched_alone(sources: str, clang: str, tmp_path: Path) -> None:
    _selection, replaced, refusals = judged(tmp_path, {**SOURCES, "pair": sources}, ONE, clang, [], lifted=False)
    assert [row.name for row in replaced] == ["one"]
    assert not refusals


@pytest.mark.parametrize("lifted", [False, True], ids=["object", "image"])
def test_functions_that_gcc_made_one_are_patched_alike_or_not_at_all(lifted: bool, gcc: str, tmp_path: Path) -> None:
    sources = {**SOURCES, "pair": STATIC}
    _selection, replaced, refusals = judged(tmp_path / "one", sources, ONE, gcc, [], lifted)
    assert [(row.code, row.symbol) for row in refusals] == [("entry-shared", "one")]

    _selection, replaced, refusals = judged(tmp_path / "both", sources, BOTH, gcc, [], lifted)
    assert len(replaced) == 1
    assert not refusals


def test_an_alias_goes_with_its_function(gcc: str, tmp_path: Path) -> None:
    alias = PAIR.replace("int other(int n) { return n * 7 - 3; }", 'int other(int n) __attribute__((alias("one")));')
    _selection, replaced, refusals = judged(tmp_path, {**SOURCES, "pair": alias}, ONE, gcc, [], lifted=False)
    assert [row.name for row in replaced] == ["one"]
    assert not refusals


def test_a_twin_that_the_new_source_has_no_more_is_no_hindrance(gcc: str, tmp_path: Path) -> None:
    edit = (STATIC.strip(), STATIC.replace("n * 7 - 3", "n * 7 - 4", 1).replace("+ other(n + 1)", "").strip(), 1)
    sources = {**SOURCES, "pair": STATIC}
    _selection, replaced, refusals = judged(tmp_path, sources, edit, gcc, [], lifted=False)
    assert "one" in [row.name for row in replaced]
    assert not refusals
