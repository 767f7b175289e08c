"""Definitions that came into a translation unit from another one.

A function that moves from one file to another, a file that is renamed, split or merged: to the program nothing
happened, its functions and variables are where they were. To the diff of one unit they look new, and a new copy of
a variable is lost state, a new copy of a function is one that old callers do not reach. So what arrived in a unit
is taken out of the old side of the unit that it came from and put into the old side of its new one, where it pairs
as if it had always been there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ipbp.graph.model import (
    COMMON,
    I32,
    SIDE_BASE,
    UNDEFINED,
    Binding,
    Blocks,
    Edges,
    LinkGraph,
    SectionTable,
    Symbols,
)
from ipbp.graph.names import Names
from ipbp.graph.unit import UNBOUND
from ipbp.stages.name_numbers import base_name
from ipbp.stages.select import OldSide


def shared_definitions(graph: LinkGraph) -> dict[str, int]:
    """The names that a unit gives to others, functions and variables, and the symbol of each."""
    symbols = graph.symbols
    rows = np.flatnonzero(((symbols.block >= 0) | (symbols.block == COMMON)) & (symbols.binding != Binding.LOCAL))
    return {name: row for name, row in zip(symbols.name.take(rows), rows.tolist(), strict=True) if name}


def empty_side(like: LinkGraph) -> OldSide:
    """The old side of a unit that is new to the process."""
    none32, none64, none8 = np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.uint8)
    graph = LinkGraph(
        path=like.path,
        source=like.source,
        machine=like.machine,
        sections=SectionTable.of(()),
        blocks=Blocks(none32, none64, none64, none64, none8, none32, np.empty(0, dtype=np.bool_)),
        symbols=Symbols(Names.of(()), none32, none64, none64, none8, none8, none8),
        edges=Edges(none32, none64, none8, none32, none64),
        first_edge=np.zeros(1, dtype=np.int64),
        side=(),
    )
    return OldSide(graph, none64, np.empty(0, dtype=np.bool_), {})


def statics(graph: LinkGraph, blocks: Iterable[int]) -> frozenset[str]:
    """Names, without the compiler's numbers, of the blocks that only this unit can see."""
    symbols, anchor = graph.symbols, graph.blocks.anchor
    rows = (int(anchor[block]) for block in blocks)
    return frozenset(base_name(symbols.name[row]) for row in rows if symbols.binding[row] == Binding.LOCAL)


def joined(own: OldSide, other: OldSide, shared: Container[str], static: Container[str]) -> OldSide:
    """`own` with those definitions of `other` that are named: `shared` ones, and static ones by their names without
    numbers. What both have stays `own`'s; the rest of `other` has no names here, so nothing pairs with it."""
    mine, theirs = own.graph, other.graph
    kept = _kept(own, other, shared, static)
    first_block, first_symbol = len(mine.blocks), len(mine.symbols)
    home = np.where(theirs.symbols.block >= 0, theirs.symbols.block + first_block, theirs.symbols.block)
    home[theirs.symbols.block <= SIDE_BASE] = UNDEFINED
    defined = (theirs.symbols.block >= 0) | (theirs.symbols.block == COMMON)
    known = kept | (~defined & (theirs.symbols.binding != Binding.LOCAL))
    name = [text if keep else "" for text, keep in zip(theirs.symbols.name, known.tolist(), strict=True)]
    row = np.arange(len(theirs.symbols), dtype=np.int32) + first_symbol
    address, arrived = own.address.copy(), np.where(known, other.address, UNBOUND)
    symbols = _joined_symbols(mine.symbols, theirs.symbols, home)
    for symbol, meant in _references(mine, theirs).items():
        row[symbol] = meant
        if kept[symbol]:  # own references to it are references to the definition now
            symbols.block[meant], symbols.offset[meant] = home[symbol], theirs.symbols.offset[symbol]
            symbols.type[meant], address[meant] = theirs.symbols.type[symbol], other.address[symbol]
        name[symbol], arrived[symbol] = "", UNBOUND
    named_here = kept[theirs.blocks.anchor]  # what stays behind pairs with nothing
    anchor = np.where(named_here, row[theirs.blocks.anchor], theirs.blocks.anchor + first_symbol)
    graph = replace(
        mine,
        sections=SectionTable.of((*mine.sections, *theirs.sections)),
        blocks=_joined_blocks(mine, theirs, anchor),
        symbols=replace(symbols, name=Names.of([*mine.symbols.name, *name])),
        edges=_joined_edges(mine.edges, theirs.edges, first_block, row),
        first_edge=np.concatenate([mine.first_edge, theirs.first_edge[1:] + len(mine.edges)]),
    )
    return OldSide(
        graph,
        np.concatenate([address, arrived]),
        np.concatenate([own.proved, other.proved]),
        {**other.retired, **own.retired},
        own.straight | other.straight,
        formers={**other.formers, **own.formers},
    )


def _kept(own: OldSide, other: OldSide, shared: Container[str], static: Container[str]) -> npt.NDArray[np.bool_]:
    """For each symbol of `other`, whether it comes along."""
    mine, theirs = own.graph.symbols, other.graph.symbols
    defined = np.flatnonzero((mine.block >= 0) | (mine.block == COMMON))
    taken = {mine.name[symbol] for symbol in defined.tolist() if mine.name[symbol]}
    kept = np.zeros(len(theirs), dtype=np.bool_)
    for symbol in np.flatnonzero((theirs.block >= 0) | (theirs.block == COMMON)).tolist():
        name = theirs.name[symbol]
        if theirs.binding[symbol] == Binding.LOCAL:
            kept[symbol] = base_name(name) in static and name not in taken
        else:
            kept[symbol] = name in shared and name not in taken
    return kept


def _references(mine: LinkGraph, theirs: LinkGraph) -> dict[int, int]:
    """Symbols of the other unit that stand for one that the own unit has already, by shared name: what several units
    define, as inline functions and typeinfos, is there once."""
    own = {
        name: row
        for row, name in enumerate(mine.symbols.name)
        if name and mine.symbols.binding[row] != Binding.LOCAL and mine.symbols.block[row] > SIDE_BASE
    }
    rows = np.flatnonzero((theirs.symbols.binding != Binding.LOCAL) & (theirs.symbols.block > SIDE_BASE)).tolist()
    names = theirs.symbols.name
    return {row: own[names[row]] for row in rows if names[row] in own}


def _joined_symbols(mine: Symbols, theirs: Symbols, home: I32) -> Symbols:
    """Both tables; the names come later."""
    return Symbols(
        name=mine.name,
        block=np.concatenate([mine.block, home]).astype(np.int32),
        offset=np.concatenate([mine.offset, theirs.offset]),
        size=np.concatenate([mine.size, theirs.size]),
        binding=np.concatenate([mine.binding, theirs.binding]),
        type=np.concatenate([mine.type, theirs.type]),
        visibility=np.concatenate([mine.visibility, theirs.visibility]),
    )


def _joined_blocks(mine: LinkGraph, theirs: LinkGraph, anchor: I32) -> Blocks:
    one, other = mine.blocks, theirs.blocks
    return Blocks(
        section=np.concatenate([one.section, other.section + len(mine.sections)]).astype(np.int32),
        offset=np.concatenate([one.offset, other.offset]),
        size=np.concatenate([one.size, other.size]),
        alignment=np.concatenate([one.alignment, other.alignment]),
        kind=np.concatenate([one.kind, other.kind]),
        anchor=np.concatenate([one.anchor, anchor]).astype(np.int32),
        mergeable=np.concatenate([one.mergeable, other.mergeable]),
    )


def _joined_edges(mine: Edges, theirs: Edges, first_block: int, row: I32) -> Edges:
    return Edges(
        block=np.concatenate([mine.block, theirs.block + first_block]).astype(np.int32),
        offset=np.concatenate([mine.offset, theirs.offset]),
        kind=np.concatenate([mine.kind, theirs.kind]),
        target=np.concatenate([mine.target, row[theirs.target]]).astype(np.int32),
        addend=np.concatenate([mine.addend, theirs.addend]),
    )
