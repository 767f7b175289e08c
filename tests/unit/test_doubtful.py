"""An address that could mean either of two neighbours is refused; one that cannot is not."""

from __future__ import annotations

import numpy as np
import pytest
from objects_from_c import SECTIONS, VARIANT_NAMES, VARIANTS, graph_of

from ipbp.graph.model import BlockKind
from ipbp.stages.doubtful import doubtful_addresses

SOURCE = """
static int before; static int array[10]; static int after; int visible[4];
int total(void) { int s = before + after; for (int *p = array; p != array + 10; p++) s += *p; return s; }
int plain(int x) { before = x; after += x; return before; }
int *global(void) { return visible; }
"""


@pytest.mark.parametrize(("compiler", "flags"), VARIANTS, ids=VARIANT_NAMES)
def test_only_addresses_of_neighbours_in_one_section_are_refused(compiler: str, flags: tuple[str, ...]) -> None:
    shared, apart = (graph_of(SOURCE, compiler, flags + sections) for sections in ((), SECTIONS))
    refusals = doubtful_addresses(shared, np.arange(len(shared.blocks), dtype=np.int32))
    assert {(refusal.code, refusal.symbol) for refusal in refusals} <= {("object-shares-sections", "total")}
    if flags[0] == "-O0":
        assert len(refusals) == 1
    assert doubtful_addresses(apart, np.arange(len(apart.blocks), dtype=np.int32)) == ()


def test_what_is_not_carried_is_not_refused() -> None:
    graph = graph_of(SOURCE, "gcc", ("-O0",))
    data = np.flatnonzero(graph.blocks.kind != BlockKind.CODE).astype(np.int32)
    assert doubtful_addresses(graph, data) == ()
