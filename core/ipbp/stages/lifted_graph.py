"""A `LinkGraph` in the making, block by block: what `lift` writes down while it walks through an image.

Each block gets a section of its own, so that its content is exactly its bytes. Symbols are made when they are first
needed: of blocks at once, of what other objects define when a fixup leads there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ipbp.graph.model import (
    UNDEFINED,
    Binding,
    BlockKind,
    Blocks,
    Edges,
    LinkGraph,
    Section,
    SectionTable,
    SideSection,
    Symbols,
    SymbolType,
    Visibility,
)
from ipbp.graph.names import Names

EMPTY_KINDS = (BlockKind.BSS, BlockKind.TLS_BSS)


@dataclass(frozen=True, slots=True)
class LiftedSymbol:
    """`block`: of the graph in the making, or UNDEFINED."""

    name: str
    block: int
    offset: int = 0
    size: int = 0
    binding: int = Binding.GLOBAL
    type: int = SymbolType.NONE
    visibility: int = Visibility.DEFAULT


@dataclass(frozen=True, slots=True)
class LiftedEdge:
    offset: int
    kind: int  # EdgeKind
    target: int
    addend: int


@dataclass(slots=True)
class GraphMaker:
    """`address`: load address of each block so far. `outside_at`: of undefined symbols what fixups that lead straight
    to them say."""

    sections: list[Section] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    anchors: list[int] = field(default_factory=list)
    mergeable: list[bool] = field(default_factory=list)
    address: list[int] = field(default_factory=list)
    symbols: list[LiftedSymbol] = field(default_factory=list)
    outside: dict[str, int] = field(default_factory=dict)
    outside_at: dict[int, set[int]] = field(default_factory=dict)
    edges: list[Sequence[LiftedEdge]] = field(default_factory=list)

    def add_block(
        self, address: int, size: int, kind: BlockKind, section: str, alignment: int, names: Sequence[LiftedSymbol]
    ) -> int:
        """A block whose bytes and edges come later (`fill`). `names`: its symbols, the anchor first, their `block`
        ignored; none makes an unnamed anchor."""
        block = len(self.kinds)
        self.kinds.append(kind)
        self.sizes.append(size)
        self.anchors.append(len(self.symbols))
        self.mergeable.append(not names and kind == BlockKind.RODATA)
        self.address.append(address)
        self.edges.append(())
        self.sections.append(Section(section, memoryview(b""), alignment))
        self.add_names(block, names or (LiftedSymbol("", block, 0, size, Binding.LOCAL),))
        return block

    def add_names(self, block: int, names: Sequence[LiftedSymbol]) -> None:
        """More symbols of a block; their own `block` is ignored."""
        self.symbols += [replace(name, block=block) for name in names]

    def fill(self, block: int, content: bytes, edges: Sequence[LiftedEdge]) -> None:
        """The bytes of a block (nothing for zero-filled kinds) and its fixups."""
        old = self.sections[block]
        kept = b"" if self.kinds[block] in EMPTY_KINDS else content
        self.sections[block] = Section(old.name, memoryview(kept), old.alignment)
        self.edges[block] = sorted(edges, key=lambda edge: edge.offset)

    def undefined(self, name: str) -> int:
        """The symbol of something that another object defines."""
        if name not in self.outside:
            self.outside[name] = len(self.symbols)
            self.symbols.append(LiftedSymbol(name, UNDEFINED))
        return self.outside[name]

    def note_place(self, symbol: int, address: int) -> None:
        """A fixup leads straight to this symbol at this load address."""
        if self.symbols[symbol].block == UNDEFINED:
            self.outside_at.setdefault(symbol, set()).add(address)

    def graph(self, path: str, source: str, machine: str, side: tuple[SideSection, ...] = ()) -> LinkGraph:
        count = [len(edges) for edges in self.edges]
        flat = [edge for edges in self.edges for edge in edges]
        blocks = Blocks(
            section=np.arange(len(self.kinds), dtype=np.int32),
            offset=np.zeros(len(self.kinds), dtype=np.int64),
            size=np.array(self.sizes, dtype=np.int64),
            alignment=np.array([section.alignment for section in self.sections], dtype=np.int64),
            kind=np.array(self.kinds, dtype=np.uint8),
            anchor=np.array(self.anchors, dtype=np.int32),
            mergeable=np.array(self.mergeable, dtype=np.bool_),
        )
        symbols = Symbols(
            name=Names.of(symbol.name for symbol in self.symbols),
            block=np.array([symbol.block for symbol in self.symbols], dtype=np.int32),
            offset=np.array([symbol.offset for symbol in self.symbols], dtype=np.int64),
            size=np.array([symbol.size for symbol in self.symbols], dtype=np.int64),
            binding=np.array([symbol.binding for symbol in self.symbols], dtype=np.uint8),
            type=np.array([symbol.type for symbol in self.symbols], dtype=np.uint8),
            visibility=np.array([symbol.visibility for symbol in self.symbols], dtype=np.uint8),
        )
        edges = Edges(
            block=np.repeat(np.arange(len(count)), count).astype(np.int32),
            offset=np.array([edge.offset for edge in flat], dtype=np.int64),
            kind=np.array([edge.kind for edge in flat], dtype=np.uint8),
            target=np.array([edge.target for edge in flat], dtype=np.int32),
            addend=np.array([edge.addend for edge in flat], dtype=np.int64),
        )
        first_edge = np.concatenate(([0], np.cumsum(count))).astype(np.int64)
        return LinkGraph(
            path, source, machine, SectionTable.of(self.sections), blocks, symbols, edges, first_edge, side
        )
