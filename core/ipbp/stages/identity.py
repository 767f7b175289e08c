"""What a block is, apart from where it is: its bytes with the fixup fields masked, and colours for unnamed content.

Two strings are the same string when their bytes are; two jump tables when their bytes are and their entries mean the
same places, which may be unnamed again. Colour refinement decides that without recursion: blocks of one content
start with one colour, and a colour splits as long as the edges of two blocks of that colour lead to different
colours. A colour means the same on both sides of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ipbp.arch.fields import clear_fields
from ipbp.graph.columns import I32, I64, Flags
from ipbp.graph.model import Binding, BlockKind, LinkGraph
from ipbp.graph.rows import ByteRows, distinct, intern, intern_numbers, is_one_of, ragged
from ipbp.stages.panic_locations import POSITION, panic_locations

READ_ONLY = (BlockKind.RODATA, BlockKind.RELRO)
NO_COLOUR = -1
_EDGE_WORDS = 4


def mask(graph: LinkGraph) -> ByteRows:
    """The bytes of each block with its fixup fields as zeros, nothing for BSS; one copy of what the sections hold. What
    a source line's number is does not count either (`panic_locations`)."""
    blocks, edges, held = graph.blocks, graph.edges, graph.sections.content
    if len(blocks) == 0:
        return ByteRows(np.empty(0, dtype=np.uint8), *(np.empty(0, dtype=np.int64),) * 2)
    filled = held.take(held.length > 0)
    first = int(filled.start.min()) if len(filled) else 0
    octets = held.octets[first : int((filled.start + filled.length).max()) if len(filled) else 0].copy()
    start = held.start[blocks.section] - first + blocks.offset
    length = np.clip(held.length[blocks.section] - blocks.offset, 0, blocks.size)
    clear_fields(octets, start[edges.block] + edges.offset, edges.kind)
    places = start[panic_locations(graph)]
    for byte in range(POSITION.start, POSITION.stop):
        octets[places + byte] = 0
    return ByteRows(octets, np.where(length > 0, start, 0), length)


def has_content_identity(graph: LinkGraph, is_numbered: Flags) -> Flags:
    """For each block, whether what it holds is what it is: unnamed blocks, elements of mergeable sections, and the
    read-only objects that the compiler numbers (`CSWTCH.5`, `__func__.0`, a local `static const`). `is_numbered`: of
    each symbol."""
    blocks, symbols = graph.blocks, graph.symbols
    local = symbols.binding[blocks.anchor] == Binding.LOCAL
    result: Flags = ~symbols.name.are_given()[blocks.anchor] | blocks.mergeable
    result |= is_numbered[blocks.anchor] & local & is_one_of(blocks.kind, READ_ONLY)
    return result


@dataclass(frozen=True, slots=True)
class Side:
    """One graph with what colouring needs. `token`: for each symbol a number that means the same on both sides when
    it is paired, or no number of the other side."""

    graph: LinkGraph
    masked: ByteRows
    by_content: Flags
    token: I64


def colours(old: Side, new: Side) -> tuple[I32, I32]:
    """The colour of each block of both sides; NO_COLOUR for blocks that are known by name."""
    ground = _first_colours(old, new)
    links = [_Links(side, column) for side, column in zip((old, new), ground, strict=True)]
    current, count = ground, 0
    while any(len(link.block) for link in links):
        numbers = intern(*(link.signatures(column) for link, column in zip(links, current, strict=True)))
        fresh = sum(len(column) for column in ground)  # beyond every first colour
        following = [column.copy() for column in ground]
        for column, link, number in zip(following, links, numbers, strict=True):
            column[link.block] = fresh + number
        current = following
        found = len(distinct(np.concatenate(numbers)))
        if found <= count or not any(link.lead_on for link in links):
            break
        count = found
    return current[0].astype(np.int32), current[1].astype(np.int32)


def _first_colours(old: Side, new: Side) -> list[I64]:
    """Colours by kind and content alone."""
    rows = [np.flatnonzero(side.by_content) for side in (old, new)]
    keys, contents = [], []
    for side, row in zip((old, new), rows, strict=True):
        kind, content = side.graph.blocks.kind[row].astype(np.int64), side.masked.take(row)
        constant = is_one_of(kind, READ_ONLY)
        # Fill behind a constant is part of its block or not, as its neighbours have it.
        content = ByteRows(
            content.octets, content.start, np.where(constant, content.without_end_zeros().length, content.length)
        )
        size = np.where(constant | (content.length > 0), 0, side.graph.blocks.size[row])
        keys.append(np.stack([np.where(constant, BlockKind.RODATA, kind), size], axis=1))
        contents.append(content)
    number = np.concatenate(intern(*contents))
    colour = intern_numbers(np.column_stack([np.concatenate(keys), number]))
    columns = [np.full(len(side.graph.blocks), NO_COLOUR, dtype=np.int64) for side in (old, new)]
    for column, row, part in zip(columns, rows, np.split(colour, [len(rows[0])]), strict=True):
        column[row] = part
    return columns


class _Links:
    """The blocks of one side that are known by content and have edges, and what those lead to. `lead_on`: some of
    them lead to others of them, so that their colours depend on each other."""

    def __init__(self, side: Side, ground: I64) -> None:
        graph, edges = side.graph, side.graph.edges
        self.block = np.flatnonzero(side.by_content & (np.diff(graph.first_edge) > 0))
        self.ground = ground
        count = np.diff(graph.first_edge)[self.block]
        owner, within = ragged(count)
        row = graph.first_edge[self.block][owner] + within
        target = edges.target[row]
        self.home = np.maximum(graph.symbols.block[target], 0)
        placed = graph.symbols.block[target] >= 0
        self.coloured = placed & side.by_content[self.home]
        itself = placed & (self.home == self.block[owner])
        self.coloured &= ~itself
        value = edges.addend[row] + np.where(placed, graph.symbols.offset[target], 0)
        self.token = np.where(itself, -1, side.token[target] * 2)
        # A signature: the first colour, then offset, kind, token and value of each edge.
        self.length = (1 + _EDGE_WORDS * count) * 8
        self.start = np.cumsum(self.length) - self.length
        self.place = (self.start // 8)[owner] + 1 + _EDGE_WORDS * within
        self.words = np.zeros(int(self.length.sum()) // 8, dtype=np.int64)
        self.words[self.start // 8] = ground[self.block]
        self.words[self.place] = edges.offset[row]
        self.words[self.place + 1] = edges.kind[row]
        self.words[self.place + 3] = value
        linked = np.zeros(len(graph.blocks), dtype=np.bool_)
        linked[self.block] = True
        self.lead_on = bool((self.coloured & linked[self.home]).any())

    def signatures(self, colour: I64) -> ByteRows:
        words = self.words.copy()
        words[self.place + 2] = np.where(self.coloured, colour[self.home] * 2 + 1, self.token)
        return ByteRows(words.view(np.uint8), self.start, self.length)
