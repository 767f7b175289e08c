"""What earlier patches took out of the archives that a program was linked from: the linker had left it out, so no image
knows it, and it runs all the same. An edit of its crate replaces it like anything else, and whatever else comes out of
the same object uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ipbp.graph.copies import without_copy_number
from ipbp.graph.model import I64, Binding, BlockKind, LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND
from ipbp.pipeline.record import UnitRecord
from ipbp.stages.select import OldSide

_LASTING = (BlockKind.CODE, BlockKind.DATA, BlockKind.BSS)
"""A constant is as good as its copy."""


def inner_names(graph: LinkGraph, copy: I64) -> dict[str, int]:
    """Where the functions and variables are that were carried and that no other object sees. `copy`: per symbol."""
    rows = _lasting(graph)
    rows = rows[(copy[rows] != UNBOUND) & (graph.symbols.binding[rows] == Binding.LOCAL)]
    return dict(zip(graph.symbols.name.take(rows), copy[rows].tolist(), strict=True))


def places(units: Mapping[str, UnitRecord]) -> dict[str, int]:
    """The names of an image's units that patches gave one place."""
    found: dict[str, int | None] = {}
    for row in units.values():
        for name, place in (*row.address.items(), *row.inner.items()):
            found[name] = place if found.get(name, place) == place else None
    return {name: place for name, place in found.items() if place is not None}


def with_taken(old: OldSide, units: Mapping[str, UnitRecord]) -> OldSide:
    """The old side of a crate with what was taken out of its objects: `units` of its image."""
    graph, address = old.graph, old.address.copy()
    taken = [row for row in units.values() if row.source and row.source in graph.sources]
    if not taken:
        return old
    inner = {row.source: row.inner for row in taken}
    shared = {name: place for row in taken for name, place in row.address.items()}
    missing = _lasting(graph)
    missing = missing[address[missing] == UNBOUND]
    names = graph.symbols.name.take(missing)
    names = without_copy_number(names) if graph.members else names
    is_local = (graph.symbols.binding[missing] == Binding.LOCAL).tolist()
    for symbol, name, source, local in zip(missing.tolist(), names, _sources(graph, missing), is_local, strict=True):
        address[symbol] = (inner.get(source, {}) if local else shared).get(name, UNBOUND)
    found = missing[address[missing] != UNBOUND]
    if len(found) == 0:
        return old
    proved = old.proved.copy()
    proved[graph.symbols.block[found]] = True
    return replace(old, address=address, proved=proved)


def _lasting(graph: LinkGraph) -> I64:
    symbols = graph.symbols
    rows: I64 = np.flatnonzero((symbols.block >= 0) & symbols.name.are_given())
    return rows[is_one_of(graph.blocks.kind[symbols.block[rows]], _LASTING)]


def _sources(graph: LinkGraph, symbols: I64) -> list[str]:
    """For each of these symbols the unit that its object is of."""
    if not graph.members:
        return [graph.source] * len(symbols)
    section = graph.blocks.section[graph.symbols.block[symbols]]
    firsts = [member.first_section for member in graph.members]
    owner = np.searchsorted(firsts, section, side="right") - 1
    return [graph.members[number].source for number in owner.tolist()]
