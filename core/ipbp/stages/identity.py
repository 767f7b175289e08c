"""What a block is, apart from where it is: its bytes with the fixup fields masked, and colours for unnamed content.

Two strings are the same string when their bytes are; two jump tables when their bytes are and their entries mean the
same places, which may be unnamed again. Colour refinement decides that without recursion: blocks of one content
start with one colour, and a colour splits as long as the edges of two blocks of that colour lead to different
colours. A colour means the same on both sides of a pair.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.arch.x86_64 import WIDTH
from ipbp.graph.model import I32, I64, Binding, BlockKind, LinkGraph

READ_ONLY = (BlockKind.RODATA, BlockKind.RELRO)
NO_COLOUR = -1

_NUMBER = re.compile(r"\.\d+(?=\.|$)|\.llvm\.\d+$")


@dataclass(frozen=True, slots=True)
class MaskedBytes:
    """The bytes of all blocks with fixup fields as zeros. Block b is `content[start[b]:end[b]]`; nothing for BSS."""

    content: bytes
    start: list[int]
    end: list[int]

    def of(self, block: int) -> bytes:
        return self.content[self.start[block] : self.end[block]]


def mask(graph: LinkGraph) -> MaskedBytes:
    """The masked bytes of a graph; one copy of its sections."""
    octets = np.frombuffer(bytearray().join(section.content for section in graph.sections), np.uint8).copy()
    lengths = np.array([len(section.content) for section in graph.sections], dtype=np.int64)
    base = np.concatenate([[0], np.cumsum(lengths)])[: len(lengths)]
    blocks, edges = graph.blocks, graph.edges
    start = base[blocks.section] + blocks.offset if len(blocks) else np.empty(0, dtype=np.int64)
    has_bytes = lengths[blocks.section] > 0 if len(blocks) else np.empty(0, dtype=np.bool_)
    end = np.where(has_bytes, start + blocks.size, start)
    field = start[edges.block] + edges.offset if len(edges) else np.empty(0, dtype=np.int64)
    width = WIDTH[edges.kind]
    for distinct in np.unique(width).tolist():
        places = field[width == distinct]
        for byte in range(distinct):
            octets[places + byte] = 0
    return MaskedBytes(octets.tobytes(), start.tolist(), end.tolist())


def base_name(name: str) -> str:
    """The name without the compiler's numbers: `count.0` -> `count`, `f.constprop.0.cold` -> `f.constprop.cold`."""
    return _NUMBER.sub("", name) if "." in name else name


def is_numbered(name: str) -> bool:
    return "." in name and _NUMBER.search(name) is not None


def has_content_identity(graph: LinkGraph) -> npt.NDArray[np.bool_]:
    """For each block, whether what it holds is what it is: unnamed blocks, elements of mergeable sections, and the
    read-only objects that the compiler numbers (`CSWTCH.5`, `__func__.0`, a local `static const`)."""
    blocks, symbols = graph.blocks, graph.symbols
    names = symbols.name
    anchors = blocks.anchor.tolist()
    unnamed = np.array([not names[anchor] for anchor in anchors], dtype=np.bool_)
    numbered = np.array([is_numbered(names[anchor]) for anchor in anchors], dtype=np.bool_)
    local = symbols.binding[blocks.anchor] == Binding.LOCAL
    result: npt.NDArray[np.bool_] = unnamed | blocks.mergeable
    result |= numbered & local & np.isin(blocks.kind, READ_ONLY)
    return result


@dataclass(frozen=True, slots=True)
class Side:
    """One graph with what colouring needs. `token`: for each symbol a number that means the same on both sides when
    it is paired, or no number of the other side."""

    graph: LinkGraph
    masked: MaskedBytes
    by_content: npt.NDArray[np.bool_]
    token: I64


def colours(old: Side, new: Side) -> tuple[I32, I32]:
    """The colour of each block of both sides; NO_COLOUR for blocks that are known by name."""
    first: dict[tuple[int, bytes], int] = {}
    sides = (old, new)
    current = [_first_colours(side, first) for side in sides]
    linked = [np.flatnonzero(side.by_content & (np.diff(side.graph.first_edge) > 0)).tolist() for side in sides]
    ground = [column.copy() for column in current]
    count = 0
    while True:
        table: dict[tuple[object, ...], int] = {}
        following = [column.copy() for column in current]
        for index, side in enumerate(sides):
            for block in linked[index]:
                signature = (int(ground[index][block]), *_links(side, block, current[index]))
                following[index][block] = len(first) + table.setdefault(signature, len(table))
        current = following
        if len(table) <= count:
            return current[0], current[1]
        count = len(table)


def _first_colours(side: Side, table: dict[tuple[int, bytes], int]) -> I32:
    column = np.full(len(side.graph.blocks), NO_COLOUR, dtype=np.int32)
    kinds = side.graph.blocks.kind.tolist()
    content, start, end = side.masked.content, side.masked.start, side.masked.end
    sizes = side.graph.blocks.size.tolist()
    for block in np.flatnonzero(side.by_content).tolist():
        kind, octets = kinds[block], content[start[block] : end[block]]
        if kind in READ_ONLY:
            # Fill behind a constant is part of its block or not, as its neighbours have it.
            kind, octets = BlockKind.RODATA, octets.rstrip(b"\0")
        elif not octets:
            octets = sizes[block].to_bytes(8, "little")
        column[block] = table.setdefault((kind, octets), len(table))
    return column


def _links(side: Side, block: int, current: I32) -> list[tuple[int, ...]]:
    graph = side.graph
    rows = graph.edges_of(block)
    target = graph.edges.target[rows]
    home = graph.symbols.block[target]
    value = graph.edges.addend[rows] + np.where(home >= 0, graph.symbols.offset[target], 0)
    coloured = (home >= 0) & side.by_content[np.maximum(home, 0)]
    itself = home == block
    token = np.where(coloured, current[np.maximum(home, 0)].astype(np.int64) * 2 + 1, side.token[target] * 2)
    token = np.where(itself, -1, token)
    columns = (graph.edges.offset[rows], graph.edges.kind[rows], token, value)
    return list(zip(*(column.tolist() for column in columns), strict=True))
