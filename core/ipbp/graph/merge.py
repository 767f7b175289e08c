"""Several objects of one translation unit as one graph.

rustc divides a crate into codegen units, an object each, and an edit may move a function from one to another. What
was one crate before and is one crate now is compared as one: names are unique in it, but for what every object
brings along (weak symbols of a section group), of which the first is kept, as a linker does (gABI, "Section Groups").

When rustc optimises, codegen units have copies of small functions under one local name, and ThinLTO makes what it
lets other units use hidden globals whose names end with `.llvm.` and a number of the unit's content. Both are made
the same here: local, with a number behind the name where that alone is not unique. `stages.rust_pairs` pairs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ipbp.errors import IpbpError
from ipbp.graph.copies import PROMOTED, with_copy_number
from ipbp.graph.model import (
    I64,
    SIDE_BASE,
    UNDEFINED,
    Binding,
    BlockKind,
    Blocks,
    Edges,
    LinkGraph,
    Member,
    SectionTable,
    SideEdges,
    SideSection,
    Symbols,
    Visibility,
    without_edges,
)
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows, intern

UNWIND = ".eh_frame"


def merged(path: str, graphs: Sequence[LinkGraph]) -> LinkGraph:
    """One graph of all; debug sections stay one for each object, unwind tables become one. `path` for messages.

    A name that one graph defines is the target of all edges that mean that name, in whichever graph they are.
    """
    if len(graphs) == 1:
        return graphs[0]
    symbols = _joined_symbols(graphs)
    meant = _meant(symbols)
    blocks = _joined_blocks(graphs)
    symbols = _told_apart(symbols, blocks, _starts(graphs, lambda graph: len(graph.symbols)))
    kept_symbol = meant == np.arange(len(symbols))
    kept_block = kept_symbol[blocks.anchor]
    # A second name in a block that is dropped goes with it.
    home = np.maximum(symbols.block, 0)
    kept_symbol &= (symbols.block < 0) | kept_block[home] if len(kept_block) else True
    # What describes dropped code describes nothing; a dropped variable is the one that was kept.
    is_code = (symbols.block >= 0) & (blocks.kind[home] == BlockKind.CODE) if len(kept_block) else symbols.block >= 0
    new_symbol, new_block = np.cumsum(kept_symbol) - 1, np.cumsum(kept_block) - 1
    target = np.where(kept_symbol, new_symbol, np.where(kept_symbol[meant], new_symbol[meant], -1))
    return LinkGraph(
        path=path,
        source="",
        machine=graphs[0].machine,
        sections=_joined_sections(graphs),
        blocks=_kept_blocks(blocks, kept_block, target),
        symbols=_kept_symbols(symbols, kept_symbol, new_block),
        **_joined_edges(graphs, kept_block, new_block, target),
        side=_joined_sides(graphs, np.where(kept_symbol | ~is_code, target, -1)),
        members=tuple(
            Member(graph.source, first)
            for graph, first in zip(graphs, _starts(graphs, lambda graph: len(graph.sections)), strict=False)
        ),
    )


def _starts(graphs: Sequence[LinkGraph], length: Callable[[LinkGraph], int]) -> list[int]:
    return [0, *np.cumsum([length(graph) for graph in graphs]).tolist()]


def _column(graphs: Sequence[LinkGraph], of: Callable[[LinkGraph], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate([of(graph) for graph in graphs])


def _joined_symbols(graphs: Sequence[LinkGraph]) -> Symbols:
    blocks = _starts(graphs, lambda graph: len(graph.blocks))
    sides = _starts(graphs, lambda graph: len(graph.side))
    home = [
        np.where(
            graph.symbols.block >= 0,
            graph.symbols.block + block,
            np.where(graph.symbols.block <= SIDE_BASE, graph.symbols.block - side, graph.symbols.block),
        )
        for graph, block, side in zip(graphs, blocks, sides, strict=False)
    ]
    return Symbols(
        name=_joined_names([graph.symbols.name for graph in graphs]),
        block=np.concatenate(home).astype(np.int32),
        offset=_column(graphs, lambda graph: graph.symbols.offset),
        size=_column(graphs, lambda graph: graph.symbols.size),
        binding=_column(graphs, lambda graph: graph.symbols.binding),
        type=_column(graphs, lambda graph: graph.symbols.type),
        visibility=_column(graphs, lambda graph: graph.symbols.visibility),
    )


def _meant(symbols: Symbols) -> I64:
    """For each symbol the one that its name means: itself for a local one, else the strongest of that name (a
    definition, of definitions one that is not weak), the first of equals."""
    rank = np.where(symbols.block == UNDEFINED, 2, np.where(symbols.binding == Binding.WEAK, 1, 0))
    # An undefined weak reference is the weakest of all: another object may need the name.
    rank[(symbols.block == UNDEFINED) & (symbols.binding == Binding.WEAK)] = 3
    shared = np.flatnonzero(symbols.binding != Binding.LOCAL)
    (name,) = intern(symbols.name.rows)
    best = np.full(len(symbols), -1, dtype=np.int64)
    order = shared[np.argsort(rank[shared], kind="stable")]
    best[name[order[::-1]]] = order[::-1]  # the first of the strongest is written last
    meant = np.arange(len(symbols), dtype=np.int64)
    meant[shared] = best[name[shared]]
    return meant


def _told_apart(symbols: Symbols, blocks: Blocks, starts: Sequence[int]) -> Symbols:
    """The symbols with those that ThinLTO made global local again, and with a name of its own for each of several
    local functions of one name. `starts`: the first symbol of each object."""
    home = np.maximum(symbols.block, 0)
    defined = symbols.block >= 0
    binding = symbols.binding.copy()
    promoted = symbols.name.containing(PROMOTED)
    promoted = promoted[defined[promoted] & (symbols.visibility[promoted] == Visibility.HIDDEN)]
    binding[promoted] = Binding.LOCAL
    rows = np.flatnonzero(defined & (binding == Binding.LOCAL) & symbols.name.are_given())
    rows = rows[blocks.kind[home[rows]] == BlockKind.CODE] if len(blocks) else rows
    (number,) = intern(symbols.name.take(rows).rows)
    copies = rows[np.bincount(number, minlength=len(rows))[number] > 1]
    unit = np.searchsorted(np.array(starts), copies, side="right") - 1
    pairs = zip(copies.tolist(), unit.tolist(), strict=True)
    names = [with_copy_number(symbols.name[row], index) for row, index in pairs]
    return replace(symbols, name=symbols.name.with_names(copies, names), binding=binding)


def _joined_names(tables: Sequence[Names]) -> Names:
    return Names(_joined_rows([table.rows for table in tables]))


def _joined_sections(graphs: Sequence[LinkGraph]) -> SectionTable:
    tables = [graph.sections for graph in graphs]
    return SectionTable(
        _joined_names([table.name for table in tables]),
        _joined_rows([table.content for table in tables]),
        np.concatenate([table.alignment for table in tables]),
        _joined_names([table.group for table in tables]),
    )


def _joined_rows(tables: Sequence[ByteRows]) -> ByteRows:
    """All rows, with what lies between the first and the last of each table."""
    octets, starts, place = [], [], 0
    for table in tables:
        used = table.take(table.length > 0)
        first = int(used.start.min()) if len(used) else 0
        end = int((used.start + used.length).max()) if len(used) else 0
        octets.append(table.octets[first:end])
        starts.append(np.where(table.length > 0, table.start - first + place, 0))
        place += end - first
    return ByteRows(np.concatenate(octets), np.concatenate(starts), np.concatenate([t.length for t in tables]))


def _joined_blocks(graphs: Sequence[LinkGraph]) -> Blocks:
    sections = _starts(graphs, lambda graph: len(graph.sections))
    symbols = _starts(graphs, lambda graph: len(graph.symbols))
    section = [graph.blocks.section + start for graph, start in zip(graphs, sections, strict=False)]
    anchor = [graph.blocks.anchor + start for graph, start in zip(graphs, symbols, strict=False)]
    return Blocks(
        section=np.concatenate(section).astype(np.int32),
        offset=_column(graphs, lambda graph: graph.blocks.offset),
        size=_column(graphs, lambda graph: graph.blocks.size),
        alignment=_column(graphs, lambda graph: graph.blocks.alignment),
        kind=_column(graphs, lambda graph: graph.blocks.kind),
        anchor=np.concatenate(anchor).astype(np.int32),
        mergeable=_column(graphs, lambda graph: graph.blocks.mergeable),
    )


def _kept_blocks(blocks: Blocks, kept: npt.NDArray[np.bool_], target: I64) -> Blocks:
    return Blocks(
        section=blocks.section[kept],
        offset=blocks.offset[kept],
        size=blocks.size[kept],
        alignment=blocks.alignment[kept],
        kind=blocks.kind[kept],
        anchor=target[blocks.anchor[kept]].astype(np.int32),
        mergeable=blocks.mergeable[kept],
    )


def _kept_symbols(symbols: Symbols, kept: npt.NDArray[np.bool_], new_block: I64) -> Symbols:
    rows = np.flatnonzero(kept)
    home = symbols.block[rows]
    return Symbols(
        name=symbols.name.take(rows),
        block=np.where(home >= 0, new_block[np.maximum(home, 0)], home).astype(np.int32),
        offset=symbols.offset[rows],
        size=symbols.size[rows],
        binding=symbols.binding[rows],
        type=symbols.type[rows],
        visibility=symbols.visibility[rows],
    )


def _joined_edges(
    graphs: Sequence[LinkGraph], kept_block: npt.NDArray[np.bool_], new_block: I64, target: I64
) -> dict[str, Any]:
    blocks = _starts(graphs, lambda graph: len(graph.blocks))
    symbols = _starts(graphs, lambda graph: len(graph.symbols))
    block = np.concatenate([g.edges.block + start for g, start in zip(graphs, blocks, strict=False)])
    aims = np.concatenate([g.edges.target + start for g, start in zip(graphs, symbols, strict=False)])
    kept = kept_block[block]
    if (target[aims[kept]] < 0).any():
        raise IpbpError(
            "object-malformed",
            f"{graphs[0].path}: something of a section group that is linked once is used from outside of it",
            "Report this, with the object files.",
        )
    edges = Edges(
        block=new_block[block[kept]].astype(np.int32),
        offset=_column(graphs, lambda graph: graph.edges.offset)[kept],
        kind=_column(graphs, lambda graph: graph.edges.kind)[kept],
        target=target[aims[kept]].astype(np.int32),
        addend=_column(graphs, lambda graph: graph.edges.addend)[kept],
    )
    first = np.searchsorted(edges.block, np.arange(int(kept_block.sum()) + 1)).astype(np.int64)
    return {"edges": edges, "first_edge": first}


def _joined_sides(graphs: Sequence[LinkGraph], target: I64) -> tuple[SideSection, ...]:
    """All side sections, their edges at the joined symbols, read when they are looked at. The first object's unwind
    table has the rows of all; the others' are empty, so that numbers of sides stay. Rows of dropped code are gone
    with their fixups' targets."""
    symbols = _starts(graphs, lambda graph: len(graph.symbols))
    sides = [
        replace(side, read=partial(_moved, side, target, start))
        for graph, start in zip(graphs, symbols, strict=False)
        for side in graph.side
    ]
    tables = [index for index, side in enumerate(sides) if side.name == UNWIND]
    if len(tables) > 1:
        parts = [sides[index] for index in tables]
        for index in tables:
            sides[index] = replace(sides[index], read=partial(without_edges, memoryview(b"")))
        alignment = max(part.alignment for part in parts)
        sides[tables[0]] = replace(parts[0], alignment=alignment, read=partial(_one_behind_the_other, parts))
    return tuple(sides)


def _moved(side: SideSection, target: I64, start: int) -> SideEdges:
    aims = target[side.target + start]
    rows = np.flatnonzero(aims >= 0)
    return SideEdges(side.content, side.offset[rows], side.kind[rows], aims[rows].astype(np.int32), side.addend[rows])


def _one_behind_the_other(parts: Sequence[SideSection]) -> SideEdges:
    """Records may be followed by zeros (LSB, "Exception Frames"), and distances within a part stay."""
    padded = [bytes(part.content) + bytes(-len(part.content) % 8) for part in parts]
    starts = np.cumsum([0, *map(len, padded)])[:-1].tolist()
    return SideEdges(
        memoryview(b"".join(padded)),
        np.concatenate([part.offset + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([part.kind for part in parts]),
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.addend for part in parts]),
    )
