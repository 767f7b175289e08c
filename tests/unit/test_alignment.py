"""Running variables must lie where the new code can use them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from patch_maker import HIGH, compile_object, graph_of, symbol, unit_of

from ipbp.graph.threads import ThreadBlock
from ipbp.graph.unit import Unit
from ipbp.stages.alignment import misaligned

SOURCE = "static {}long pair[2]; long g(void) {{ return pair[1]; }} void f(void) {{ pair[0] += 1; pair[1] += 2; }}"


def unit(folder: Path, gcc: str, kind: str, *flags: str) -> Unit:
    """The unit whose `f` is carried; its vectorised form needs both numbers at a multiple of 16."""
    path = compile_object(folder, SOURCE.format(kind), gcc, "-O2", "-ftree-slp-vectorize", *flags)
    return unit_of(graph_of(path), carried=["f"])


@pytest.mark.parametrize(("place", "fits"), [(0, True), (8, False), (16, True)])
def test_a_variable_at_another_place_than_the_code_counts_on_is_refused(
    gcc: str, tmp_path: Path, place: int, fits: bool
) -> None:
    made = unit(tmp_path, gcc, "")
    address = made.address.copy()
    address[symbol(made.graph, "pair")] = HIGH + 0x1000 + place
    refusals = misaligned([replace(made, address=address)])
    assert [(row.code, row.symbol) for row in refusals] == ([] if fits else [("data-alignment-changed", "pair")])


@pytest.mark.parametrize(
    ("offset", "alignment", "fits"), [(-32, 16, True), (-40, 16, False), (-32, 8, False), (None, 16, True)]
)
def test_a_thread_local_one_counts_from_the_thread_pointer(
    gcc: str, tmp_path: Path, offset: int | None, alignment: int, fits: bool
) -> None:
    made = unit(tmp_path, gcc, "__thread ")
    block = ThreadBlock(HIGH, 64, offset, 1, alignment)
    thread = {symbol(made.graph, "pair"): block.place(HIGH)}
    assert [row.code for row in misaligned([replace(made, thread=thread)])] == (
        [] if fits else ["data-alignment-changed"]
    )


def test_code_that_takes_one_at_a_time_works_at_any_number(gcc: str, tmp_path: Path) -> None:
    made = unit(tmp_path, gcc, "__thread ", "-fno-tree-slp-vectorize")
    thread = {symbol(made.graph, "pair"): ThreadBlock(HIGH, 64, -40, 1, 8).place(HIGH)}
    assert misaligned([replace(made, thread=thread)]) == ()
