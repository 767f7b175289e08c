"""What comes along with a changed function, and what stays bound to the running copy."""

from __future__ import annotations

import numpy as np
import pytest
from objects_from_c import VARIANT_NAMES, VARIANTS, graph_of

from ipbp.stages.compare import compare
from ipbp.stages.copies import Copies
from ipbp.stages.correlate import correlate
from ipbp.stages.select import OldSide, Selection, select

DISPATCH = """
unsigned run(unsigned x) {
    static void *%s go[] = {&&one, &&two, &&three};
    goto *go[x %% 3];
    one: x += 11;
    two: x ^= %s;
    three: return x;
}
static const char *const names[] = {"a", "%s"};
const char *name(unsigned x) { return names[x & 1]; }
static unsigned calls;
unsigned count(void) { return ++calls %s; }
"""
COROUTINE = """
unsigned step(unsigned x) {
    static void *place = &&first;
    goto *place;
    first: place = &&second; return x + %s;
    second: place = &&first; return x + 2;
}
"""


def selected(old: str, new: str, compiler: str, flags: tuple[str, ...]) -> tuple[Selection, set[str]]:
    """The selection when everything old runs at some address; the names of the blocks that come along."""
    before, after = graph_of(old, compiler, flags), graph_of(new, compiler, (*flags, "-fdata-sections"))
    address = np.where(before.symbols.block >= 0, 0x400000 + 64 * np.arange(len(before.symbols)), -1)
    side = OldSide(before, address.astype(np.int64), np.ones(len(before.blocks), dtype=np.bool_), {})
    correlation = correlate(before, after)
    selection = select("unit.c", after, side, Copies(correlation, compare(before, after, correlation)))
    return selection, {after.block_name(block) for block in selection.unit.carried.tolist()}


def bases(names: set[str]) -> set[str]:
    """gcc says `go.0`, clang `run.go`."""
    known = {"go", "names", "run", "name", "calls", "count"}
    return {part for name in names for part in name.split(".")} & known


@pytest.mark.parametrize(("compiler", "flags"), VARIANTS, ids=VARIANT_NAMES)
@pytest.mark.parametrize("qualifier", ["const", ""])
def test_a_table_of_labels_goes_with_its_function(qualifier: str, compiler: str, flags: tuple[str, ...]) -> None:
    selection, names = selected(
        DISPATCH % (qualifier, "0x1234", "b", ""), DISPATCH % (qualifier, "0x4321", "b", ""), compiler, flags
    )
    assert bases(names) == {"run", "go"}
    assert not selection.refusals


@pytest.mark.parametrize(("compiler", "flags"), VARIANTS, ids=VARIANT_NAMES)
def test_a_changed_constant_comes_along_and_state_does_not(compiler: str, flags: tuple[str, ...]) -> None:
    words = ("const", "7")
    selection, names = selected(DISPATCH % (*words, "b", ""), DISPATCH % (*words, "other", "+ 5"), compiler, flags)
    assert bases(names) == {"name", "names", "count"}
    assert not selection.refusals


@pytest.mark.parametrize(("compiler", "flags"), VARIANTS, ids=VARIANT_NAMES)
def test_a_coroutine_that_waits_at_a_label_is_refused(compiler: str, flags: tuple[str, ...]) -> None:
    selection, _names = selected(COROUTINE % "1", COROUTINE % "3", compiler, flags)
    assert {refusal.code for refusal in selection.refusals} == {"label-in-variable"}


@pytest.mark.parametrize(("compiler", "flags"), VARIANTS, ids=VARIANT_NAMES)
def test_a_constant_that_other_files_can_see_is_refused_when_it_changes(compiler: str, flags: tuple[str, ...]) -> None:
    source = "{}const int limits[] = {{1, 2, {}}};\nint limit(int x) {{ return limits[x]; }}\n"
    selection, _names = selected(source.format("", 3), source.format("", 4), compiler, flags)
    assert [(refusal.code, refusal.symbol) for refusal in selection.refusals] == [("shared-constant-changed", "limits")]
    selection, names = selected(source.format("static ", 3), source.format("static ", 4), compiler, flags)
    assert not selection.refusals
    assert names == {"limit", "limits"}
