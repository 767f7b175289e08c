"""Which variables code uses that counts from a section anchor.

Without -fdata-sections gcc for AArch64 makes one address in a section and counts from it to all variables there (GCC
manual, -fsection-anchors). So the fixups of a function name one variable, which it need not use at all, and none of
those that it uses. Who tells variables apart by who refers to them needs the references that are meant. What may lead
to any of a section's variables refers to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ipbp.arch.instructions import CodeReference, Told
from ipbp.arch.machines import machine_of
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import Binding, BlockKind, Edges, LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.stages.meant import meant

_SECTION = 40
"""Bits of an offset in a section: what is told here as an address is both."""
_PARTS = (
    EdgeKind.PAGE21,
    EdgeKind.PAGE21_UNCHECKED,
    EdgeKind.ADDRESS21,
    *range(EdgeKind.LOW12, EdgeKind.LOW12_OF_128 + 1),
)
_UNTOLD = (*range(EdgeKind.GOT_PAGE21, EdgeKind.TLSDESC_LOW12 + 1),)


def with_anchored_uses(graph: LinkGraph) -> LinkGraph:
    """The graph with edges to the variables that are meant, where code takes the address of one that shares its
    section. Blocks, symbols and their numbers stay."""
    references = machine_of(graph.machine).told_references
    return graph if references is None else _Anchors(graph, references).run()


@dataclass(frozen=True, slots=True)
class _Use:
    block: int
    offset: int
    target: int
    inside: int


class _Anchors:
    """`starts`, `order`: the keys of all blocks, ascending, and the blocks in that order."""

    def __init__(self, graph: LinkGraph, references: Callable[[bytes, int, Told], list[CodeReference]]) -> None:
        self.graph, self.references = graph, references
        blocks = graph.blocks
        self.key = (blocks.section.astype(np.int64) << _SECTION) + blocks.offset
        self.order = np.argsort(self.key, kind="stable")
        self.starts = self.key[self.order]
        is_data = blocks.kind != BlockKind.CODE
        self.count = np.bincount(blocks.section[is_data], minlength=len(graph.sections) + 1)

    def run(self) -> LinkGraph:
        kept, uses = np.ones(len(self.graph.edges), dtype=np.bool_), list[_Use]()
        for block in self._anchored():
            uses += self._uses(block, kept)
        uses += self._of_threads()
        return self._with_edges(kept, uses)

    def _of_threads(self) -> Iterator[_Use]:
        """Thread-local variables have anchors, too, which code gets in several ways and counts on from somewhere else.
        A static one that nothing refers to says so: a compiler leaves such a variable out."""
        edges, blocks, symbols = self.graph.edges, self.graph.blocks, self.graph.symbols
        is_thread_local = is_one_of(blocks.kind, (BlockKind.TLS_DATA, BlockKind.TLS_BSS))
        if not is_thread_local.any():
            return
        home = symbols.block[edges.target]
        used = (home >= 0) & is_thread_local[np.maximum(home, 0)] & (blocks.kind[edges.block] == BlockKind.CODE)
        unused = is_thread_local & (symbols.binding[blocks.anchor] == Binding.LOCAL)
        unused[home[used]] = False
        anchored = used & np.isin(blocks.section[np.maximum(home, 0)], blocks.section[unused])
        for row in np.flatnonzero(anchored).tolist():
            for other in self._all_beside(int(edges.block[row]), int(home[row])):
                yield _Use(int(edges.block[row]), int(edges.offset[row]), other, 0)

    def _anchored(self) -> list[int]:
        """Code with an address in a section that holds several variables."""
        edges, blocks = self.graph.edges, self.graph.blocks
        home = self.graph.symbols.block[edges.target]
        shared = (home >= 0) & (self.count[blocks.section[np.maximum(home, 0)]] > 1)
        shared &= (blocks.kind[np.maximum(home, 0)] != BlockKind.CODE) & (edges.kind == EdgeKind.LOW12)
        shared &= blocks.kind[edges.block] == BlockKind.CODE
        found: list[int] = np.unique(edges.block[shared]).tolist()
        return found

    def _uses(self, block: int, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[_Use]:
        """What the code counts on to. Edges that are not meant are taken out of `kept`."""
        graph = self.graph
        rows = self.references(bytes(graph.content(block)), int(self.key[block]), self._told(block))
        wanted = meant(rows, self._thing)
        unmeant = {row.field for row in rows} - {row.field for row in wanted}
        here = graph.edges_of(block)
        kept[here] &= ~np.isin(graph.edges.offset[here], list(unmeant))
        for row in wanted:
            if row.base is None:
                continue
            thing = self._thing(row.base if row.is_unsure else row.place)
            if thing is None:
                continue
            for home in self._all_beside(block, thing) if row.is_unsure else [thing]:
                yield _Use(block, row.field, home, 0 if row.is_unsure else row.place - int(self.key[home]))

    def _told(self, block: int) -> dict[int, int | None]:
        graph, rows = self.graph, self.graph.edges_of(block)
        target, kind = graph.edges.target[rows], graph.edges.kind[rows]
        home = graph.symbols.block[target]
        place = self.key[np.maximum(home, 0)] + graph.symbols.offset[target] + graph.edges.addend[rows]
        is_told = (home >= 0) & np.isin(kind, _PARTS)
        has_part = is_told | np.isin(kind, (*_PARTS, *_UNTOLD))
        columns = (graph.edges.offset[rows], place, is_told, has_part)
        return {
            offset: number if told else None
            for offset, number, told, some in zip(*(column.tolist() for column in columns), strict=True)
            if some
        }

    def _thing(self, place: int) -> int | None:
        """The block at a place; padding behind one is a part of it."""
        row = int(np.searchsorted(self.starts, place, side="right")) - 1
        block = int(self.order[row]) if row >= 0 else -1
        return block if block >= 0 and int(self.key[block]) >> _SECTION == place >> _SECTION else None

    def _all_beside(self, code: int, block: int) -> list[int]:
        """All blocks of its section, and the code itself in front, which the next version does not refer to there: it
        is not to be taken for a list of what is used, in that order."""
        beside = np.flatnonzero(self.graph.blocks.section == self.graph.blocks.section[block])
        return [code, *beside.tolist()]

    def _with_edges(self, kept: np.ndarray[tuple[int], np.dtype[np.bool_]], uses: list[_Use]) -> LinkGraph:
        edges, anchor = self.graph.edges, self.graph.blocks.anchor
        if kept.all() and not uses:
            return self.graph
        more = Edges(
            np.array([use.block for use in uses], dtype=np.int32),
            np.array([use.offset for use in uses], dtype=np.int64),
            np.full(len(uses), EdgeKind.LOW12, dtype=np.uint8),
            np.array([anchor[use.target] for use in uses], dtype=np.int32),
            np.array([use.inside for use in uses], dtype=np.int64),
        )
        columns = [
            np.concatenate([old[kept], new])
            for old, new in (
                (edges.block, more.block),
                (edges.offset, more.offset),
                (edges.kind, more.kind),
                (edges.target, more.target),
                (edges.addend, more.addend),
            )
        ]
        order = np.lexsort((columns[1], columns[0]))
        block, offset, kind, target, addend = (column[order] for column in columns)
        first = np.searchsorted(block, np.arange(len(self.graph.blocks) + 1)).astype(np.int64)
        return replace(self.graph, edges=Edges(block, offset, kind, target, addend), first_edge=first)
