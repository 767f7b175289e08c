"""What patches took out of archives belongs to the crate whose objects these are (`pipeline.taken`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patch_maker import compile_object, graph_of, symbol

from ipbp.graph.merge import merged
from ipbp.graph.model import LinkGraph
from ipbp.graph.unit import UNBOUND
from ipbp.pipeline.record import UnitRecord
from ipbp.pipeline.taken import inner_names, places, with_taken
from ipbp.stages.select import OldSide

SOURCE = """
static int state; static const int table[3] = {1, 2, 3};
static __attribute__((noinline)) int helper(int x) { return table[x & 1] + state; }
int NAME(int x) { state++; return helper(x); }
"""


@pytest.fixture
def members(tmp_path: Path, gcc: str) -> list[LinkGraph]:
    """Two objects of one crate that have local names in common."""
    rows = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        source = SOURCE.replace("NAME", name)
        flags = ("-O1", "-ffunction-sections", "-fdata-sections")
        rows.append(graph_of(compile_object(tmp_path / name, source, gcc, *flags, name=f"{name}.c")))
    return rows


def _side(graph: LinkGraph) -> OldSide:
    """Of which memory holds nothing."""
    nowhere = np.full(len(graph.symbols), UNBOUND, dtype=np.int64)
    return OldSide(graph, nowhere, np.zeros(len(graph.blocks), dtype=bool), {})


def _taken(graph: LinkGraph) -> UnitRecord:
    """All of an object, carried to addresses by the symbols' rows."""
    copy = np.arange(len(graph.symbols), dtype=np.int64) + 0x1000
    shared = {graph.source.removesuffix(".c"): 0x1000 + symbol(graph, graph.source.removesuffix(".c"))}
    return UnitRecord("", shared, source=graph.source, inner=inner_names(graph, copy))


def test_functions_and_state_are_where_they_were_put_and_constants_are_nowhere(members: list[LinkGraph]) -> None:
    second = members[1]
    crate = merged("crate", members)
    row = _taken(second)
    assert row.inner.keys() == {"state", "helper"}
    side = with_taken(_side(crate), {"lib.rlib(second.o)": row})
    found = {}
    for at in np.flatnonzero(side.address != UNBOUND).tolist():
        section = int(crate.blocks.section[crate.symbols.block[at]])
        name = crate.symbols.name[at].partition(".")[0]  # there are two of it
        found[name, section >= crate.members[1].first_section] = int(side.address[at])
        assert side.proved[crate.symbols.block[at]]
    assert found == {(name, True): place for name, place in {**row.address, **row.inner}.items()}


def test_what_an_image_or_a_patch_has_stays_where_it_is(members: list[LinkGraph]) -> None:
    first = members[0]
    side = _side(first)
    side.address[symbol(first, "helper")] = 7
    found = with_taken(side, {"lib.rlib(first.o)": _taken(first)})
    assert found.address[symbol(first, "helper")] == 7
    assert found.address[symbol(first, "state")] == 0x1000 + symbol(first, "state")
    assert side.address[symbol(first, "state")] == UNBOUND, "the side that was given is as it was"


def test_another_object_takes_no_part(members: list[LinkGraph]) -> None:
    side = _side(members[0])
    rows = {"lib.rlib(second.o)": _taken(members[1]), "edited": UnitRecord("digest", {"first": 9, "helper": 9})}
    assert with_taken(side, rows) is side


def test_a_name_with_two_places_has_none() -> None:
    one = UnitRecord("", {"shared": 1}, source="a.c", inner={"own": 2})
    other = UnitRecord("digest", {"shared": 1, "own": 3})
    assert places({"one": one, "other": other}) == {"shared": 1}
    assert places({"one": one, "other": replace(other, address={})}) == {"shared": 1, "own": 2}
