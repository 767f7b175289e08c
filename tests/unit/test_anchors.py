"""AArch64: static variables that gcc counts to from another one are told apart by who really uses them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from patch_maker import graph_of

from ipbp.graph.model import LinkGraph
from ipbp.stages.anchors import with_anchored_uses
from ipbp.stages.correlate import UNPAIRED, correlate

SECTIONS = ("-ffunction-sections", "-fdata-sections")
FUNCTIONS = {
    "first": "int first(int n) { static int count = 5, more = 50; count += n; more -= count; return count * more; }",
    "second": "int second(int n) { static int count = 6, last = 60; count *= n; last += count; return last; }",
    "third": "int third(int n) { static int count = 7; for (int i = 0; i < n; i++) count ^= i * n; return count; }",
    "fourth": "int fourth(int n) { static int count = 8; extern void give(int *); give(&count); return count + n; }",
}
Compiled = Callable[..., LinkGraph]
VALUES = (5, 6, 7, 8)


@pytest.fixture
def compiled(aarch64: str, tmp_path: Path) -> Compiled:
    def made(functions: Sequence[str], *flags: str) -> LinkGraph:
        text = "\n".join(functions)
        (tmp_path / "unit.c").write_text(text)
        subprocess.run([aarch64, *flags, "-c", "unit.c"], cwd=tmp_path, check=True)
        return graph_of(tmp_path / "unit.o")

    return made


def paired(old: LinkGraph, new: LinkGraph) -> dict[int, int]:
    """What each `count` begins with -> what the old variable that it was paired with begins with."""
    pairs = correlate(old, new).symbol
    rows = [row for row, name in enumerate(new.symbols.name) if name.startswith("count.") and pairs[row] != UNPAIRED]
    return {first_value(new, row): first_value(old, int(pairs[row])) for row in rows}


def first_value(graph: LinkGraph, symbol: int) -> int:
    return int.from_bytes(bytes(graph.content(int(graph.symbols.block[symbol])))[:4], "little")


@pytest.mark.parametrize("level", ["-O1", "-O2", "-O3", "-Os"])
def test_a_variable_stays_with_its_function(level: str, compiled: Compiled) -> None:
    changed = {name: text.replace("return", "return 1 +") for name, text in FUNCTIONS.items()}
    old = compiled(list(FUNCTIONS.values()), level)
    assert paired(old, compiled(list(changed.values()), level, *SECTIONS)) == {value: value for value in VALUES}
    for gone, text in zip(VALUES, changed.values(), strict=True):
        left = [other for other in changed.values() if other != text]
        wanted = {value: value for value in VALUES if value != gone}
        assert paired(old, compiled(left, level, *SECTIONS)) == wanted
        assert paired(old, compiled(left[::-1], level)) == wanted


INDEXED = """
.type function, %function
function:
    adrp x1, first
    add x1, x1, #:lo12:first
    add x1, x1, w0, sxtw #2
    ldr w0, [x1, #8]
    ret
.size function, . - function
.data
.type first, %object
.size first, 8
first: .word 1, 2
.type second, %object
.size second, 4
second: .word 3
.type third, %object
.size third, 4
third: .word 4
"""


def test_what_may_lead_to_any_variable_of_the_section_refers_to_all(aarch64: str, tmp_path: Path) -> None:
    """An array may be counted on to from an anchor, by a number that varies and a distance."""
    (tmp_path / "unit.s").write_text(INDEXED)
    subprocess.run([aarch64, "-c", "unit.s"], cwd=tmp_path, check=True)
    graph = with_anchored_uses(graph_of(tmp_path / "unit.o"))
    assert {graph.symbols.name[row] for row in graph.edges.target.tolist()} >= {"first", "second", "third"}


THREADS = (
    "int first(int n) { static __thread int count = 5; count += n; return count; }",
    "int second(int n) { static __thread int count = 6; count *= n; return count; }",
    "int third(int n) { static __thread int count = 7; count -= n; return count; }",
)


@pytest.mark.parametrize("model", ["-fPIE", "-fPIC"])
@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_thread_local_variables_are_never_taken_for_another_one(level: str, model: str, compiled: Compiled) -> None:
    old = compiled(THREADS, level, model)
    changed = [text.replace("return", "return 1 +") for text in THREADS[1:]]
    new = compiled(changed, level, model, *SECTIONS)
    if level == "-O0":
        assert paired(old, new) == {6: 6, 7: 7}
    else:
        assert paired(old, new) == {}
        assert len(correlate(old, new).ambiguous) == 2


def test_code_with_a_section_for_each_variable_is_as_it_was(compiled: Compiled) -> None:
    graph = compiled(list(FUNCTIONS.values()), "-O2", *SECTIONS)
    assert with_anchored_uses(graph) is graph
