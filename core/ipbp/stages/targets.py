"""What a symbol means in a patch: the old entry, the carried copy, a pointer cell or a stub.

A function that existed keeps its old entry as its address for ever: pointers to it, comparisons and calls go there,
and the jump written there knows the newest version. An edge into its *interior* (a jump table, the way back from
its cold part, a label's address) means the carried copy, because the old interior is other code. Which of the two
an edge means is read off the addend: an edge to the very start of a function is a use of its name, unless it is
control flow inside the function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.arch.machines import machine_of
from ipbp.errors import Refusal
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import ABSOLUTE, I32, I64, U8, Binding, BlockKind, LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND, Unit

ABSOLUTES = (EdgeKind.ABS64, EdgeKind.ABS32, EdgeKind.ABS32S, EdgeKind.ABS16, EdgeKind.ABS8, EdgeKind.WORD32)
BRANCHES = (EdgeKind.BRANCH32, EdgeKind.BRANCH26)
"""Calls and jumps that may go to a stub instead."""
GOT_KINDS = (
    EdgeKind.GOT_PCREL32,
    EdgeKind.GOT_PCREL32_RELAX,
    EdgeKind.GOT_PCREL32_REX_RELAX,
    EdgeKind.GOT_PCREL32_REX2_RELAX,
    EdgeKind.GOT_PCREL64,
    EdgeKind.GOT_SLOT32,
    EdgeKind.GOT_SLOT64,
    EdgeKind.GOT_PAGE21,
    EdgeKind.GOT_LOW12,
    EdgeKind.GOT_LITERAL19,
)
"""Fields that lead to a pointer cell."""
_RELATIVES = (EdgeKind.PCREL64, EdgeKind.PCREL32, EdgeKind.PCREL16, EdgeKind.PCREL8)
Exports = Mapping[tuple[str, str], int]
"""(key of an image, name) -> address of what the patch brings there."""
_PART_MARK = ".cold"  # gcc and LLVM name the rarely run part of f `f.cold`


@dataclass(frozen=True, slots=True)
class CarriedEdges:
    """The fixups of a unit's carried blocks; columns. `interior`: the edge means the carried copy of its target."""

    block: I32
    offset: I64
    kind: U8
    target: I32
    addend: I64
    interior: npt.NDArray[np.bool_]


def carried_edges(unit: Unit) -> CarriedEdges:
    """All edges whose field is in a carried block, in the graph's order."""
    graph = unit.graph
    counts = (graph.first_edge[1:] - graph.first_edge[:-1])[unit.carried]
    starts = graph.first_edge[unit.carried]
    rows = np.arange(int(counts.sum())) + np.repeat(starts - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
    edges = graph.edges
    block, kind, target, addend = edges.block[rows], edges.kind[rows], edges.target[rows], edges.addend[rows]
    return CarriedEdges(
        block=block,
        offset=edges.offset[rows],
        kind=kind,
        target=target,
        addend=addend,
        interior=_interior(graph, unit.carried, block, kind, target, addend),
    )


def copies(unit: Unit, block: I64) -> I64:
    """Per symbol its place in the carried copy of its block, UNBOUND where that is not carried."""
    home = unit.graph.symbols.block
    base = block[np.maximum(home, 0)]
    carried = (home >= 0) & (base != UNBOUND)
    result: I64 = np.where(carried, base + unit.graph.symbols.offset, UNBOUND)
    return result


def go_by_name(edges: CarriedEdges, copy: I64) -> npt.NDArray[np.bool_]:
    """For each edge whether it leads to what its target's name stands for, and not into a carried copy, which is never
    far. `copy`: `copies`."""
    result: npt.NDArray[np.bool_] = ~edges.interior | (copy[edges.target] == UNBOUND)
    return result


def exported(units: Sequence[Unit], copy: Sequence[I64]) -> tuple[Exports, tuple[Refusal, ...]]:
    """Address of every name that the patch itself gives to other units, by image. Of several weak definitions the
    first counts, as for a linker (gABI, "Symbol Table"); two strong ones are refused as `duplicate-symbol`."""
    address: dict[tuple[str, str], int] = {}
    strong: dict[tuple[str, str], str] = {}
    refusals = []
    for unit, column in zip(units, copy, strict=True):
        symbols = unit.graph.symbols
        named = np.flatnonzero((column != UNBOUND) & (symbols.binding != Binding.LOCAL) & (unit.address == UNBOUND))
        for symbol in named.tolist():
            name = unit.image, symbols.name[symbol]
            if _is_strong(unit.graph, symbol):
                if name in strong:
                    refusals.append(_duplicate(name[1], strong[name], unit.name))
                    continue
                strong[name] = unit.name
                address[name] = int(column[symbol])
            address.setdefault(name, int(column[symbol]))
    return address, tuple(refusals)


def meanings(unit: Unit, copy: I64, exports: Exports) -> I64:
    """Per symbol the address that its name stands for in the patched process, UNBOUND where there is none."""
    symbols = unit.graph.symbols
    meaning = np.where(unit.address == UNBOUND, copy, unit.address)
    absolute = (meaning == UNBOUND) & (symbols.block == ABSOLUTE)
    meaning[absolute] = symbols.offset[absolute]
    shared = (unit.address == UNBOUND) & (symbols.binding != Binding.LOCAL)
    for symbol in np.flatnonzero(shared).tolist():
        name = symbols.name[symbol]
        meaning[symbol] = exports.get((unit.giver.get(name, unit.image), name), meaning[symbol])
    return meaning


def _interior(graph: LinkGraph, carried: I32, block: I32, kind: U8, target: I32, addend: I64) -> npt.NDArray[np.bool_]:
    # Where relative fields count from the end of their instruction, the start of a function has the addend -4. One byte
    # less for every byte of immediate behind the field does not occur for code addresses.
    from_code = graph.blocks.kind[block] == BlockKind.CODE
    place = graph.symbols.offset[target] + addend
    start = -machine_of(graph.machine).from_end[kind].astype(np.int64)
    # A distance stored in data is an entry of a jump table: it counts from the table.
    inside = (place != start) | (~from_code & is_one_of(kind, _RELATIVES))
    # A branch field in data (`.long f@PLT - table`) names a function, wherever it counts from.
    inside &= from_code | (kind != EdgeKind.BRANCH32)
    home = graph.symbols.block[target]
    inside |= _parents(graph, carried)[block] == home
    to_code = (home >= 0) & (graph.blocks.kind[np.maximum(home, 0)] == BlockKind.CODE)
    interior: npt.NDArray[np.bool_] = inside & to_code & ~is_one_of(kind, GOT_KINDS)
    return interior


def _parents(graph: LinkGraph, carried: I32) -> I32:
    # For each block that is a carried part of a function, the function's block; -1 for all others.
    parent = np.full(len(graph.blocks), -1, dtype=np.int32)
    names = graph.symbols.name
    wanted: dict[str, list[int]] = {}
    for block in carried.tolist():
        whole, mark, _rest = names[int(graph.blocks.anchor[block])].partition(_PART_MARK)
        if mark:
            wanted.setdefault(whole, []).append(block)
    if wanted:
        for block in carried.tolist():
            for part in wanted.get(names[int(graph.blocks.anchor[block])], ()):
                parent[part] = block
    return parent


def _is_strong(graph: LinkGraph, symbol: int) -> bool:
    if graph.symbols.binding[symbol] == Binding.WEAK or graph.symbols.block[symbol] < 0:
        return False
    # Every member of a COMDAT group is defined once for the whole program, whatever its binding says.
    return not graph.sections[int(graph.blocks.section[graph.symbols.block[symbol]])].group


def _duplicate(name: str, first: str, second: str) -> Refusal:
    return Refusal(
        "duplicate-symbol",
        f"'{name}' is defined in {first} and in {second}",
        "Rename one of them, or make it static.",
        name,
        second,
    )
