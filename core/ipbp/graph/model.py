"""LinkGraph: blocks (bytes that stay together), symbols (named places in a block) and edges (one fixup each).

The store is columnar. A Rust object has a hundred thousand edges; they become Python objects only for the few
blocks that a patch carries over. All columns are numpy arrays of one length per table; an index into a table is
that thing's id. A graph is never changed once it is built.

What readers promise:

* Every allocated byte of the object belongs to exactly one block, except unwind tables (`.eh_frame`) and notes,
  which travel as `SideSection`s, as debug sections do.
* Code is split at function symbols (a part such as `f.cold` is a block of its own), named data at object symbols,
  mergeable sections at their elements, and unnamed data at the places that code refers to.
* Every edge that points into a block of this object targets a symbol of that block (its anchor, when the file
  said "section + addend"), and the addend is adjusted so that the kind's equation still holds.
* `edges` is sorted by (block, offset), and `first_edge[b]:first_edge[b + 1]` are those of block b.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

import numpy as np
import numpy.typing as npt

from ipbp.graph.columns import I32 as I32
from ipbp.graph.columns import I64 as I64
from ipbp.graph.columns import U8 as U8
from ipbp.graph.columns import ColumnEnum
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows, byte_rows


class BlockKind(ColumnEnum):
    """Where a block lives. RELRO is data that is constant once it is relocated (`.data.rel.ro`)."""

    CODE = 0
    RODATA = 1
    RELRO = 2
    DATA = 3
    BSS = 4
    TLS_DATA = 5
    TLS_BSS = 6
    INIT = 7  # arrays of functions that run before main or at exit
    TLS_DESCRIPTORS = 8  # what a loader makes room in the threads for (Mach-O, `__thread_vars`)


class Binding(ColumnEnum):
    LOCAL = 0
    GLOBAL = 1
    WEAK = 2


class SymbolType(ColumnEnum):
    """As in the ELF gABI, "Symbol Table"; SECTION symbols do not survive the reader."""

    NONE = 0
    OBJECT = 1
    FUNCTION = 2
    TLS = 6
    IFUNC = 10


class Visibility(ColumnEnum):
    DEFAULT = 0
    INTERNAL = 1
    HIDDEN = 2
    PROTECTED = 3


UNDEFINED = -1
"""`symbols.block` of a symbol that another object defines."""
ABSOLUTE = -2
"""`symbols.block` of a symbol whose `offset` is its value."""
COMMON = -3
"""`symbols.block` of a tentative definition; `offset` is its alignment (gABI, SHN_COMMON)."""
SIDE_BASE = -4
"""A symbol with `block` <= SIDE_BASE stands for a side section, `graph.side[SIDE_BASE - block]`; `offset` is a place
in it. References from one debug section to another (.debug_info to .debug_str) target such a symbol."""


@dataclass(frozen=True, slots=True)
class Blocks:
    section: I32  # index into LinkGraph.sections
    offset: I64  # of the block in its section
    size: I64
    alignment: I64
    kind: U8  # BlockKind
    anchor: I32  # the symbol that stands for the block; unnamed blocks have one with the name ""
    mergeable: npt.NDArray[np.bool_]  # an element of a SHF_MERGE section: only its content matters

    def __len__(self) -> int:
        return len(self.section)


@dataclass(frozen=True, slots=True)
class Symbols:
    name: Names  # "" for the anchors of unnamed blocks
    block: I32  # or UNDEFINED, ABSOLUTE, COMMON
    offset: I64  # in the block
    size: I64
    binding: U8  # Binding
    type: U8  # SymbolType
    visibility: U8  # Visibility

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True, slots=True)
class Edges:
    block: I32  # that holds the fixup
    offset: I64  # of the fixup in that block
    kind: U8  # EdgeKind
    target: I32  # symbol
    addend: I64

    def __len__(self) -> int:
        return len(self.block)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the file as it was named there. `content` is empty for sections without bytes (`.bss`)."""

    name: str
    content: memoryview
    alignment: int
    group: str = ""  # signature of its COMDAT group


class SectionTable(Sequence[Section]):
    """The sections of a graph, as columns: with -ffunction-sections there are several for each function."""

    __slots__ = ("alignment", "content", "group", "name")

    def __init__(self, name: Names, content: ByteRows, alignment: I64, group: Names) -> None:
        self.name, self.content, self.alignment, self.group = name, content, alignment, group

    @staticmethod
    def of(sections: Iterable[Section]) -> SectionTable:
        """The table of a list; one copy of the contents."""
        rows = list(sections)
        return SectionTable(
            Names.of(row.name for row in rows),
            byte_rows([bytes(row.content) for row in rows]),
            np.array([row.alignment for row in rows], dtype=np.int64),
            Names.of(row.group for row in rows),
        )

    def holding(self, contents: Mapping[int, bytes | bytearray]) -> SectionTable:
        """The table with other contents for some sections."""
        rows, fresh = self.content, byte_rows([bytes(content) for content in contents.values()])
        start, length = rows.start.copy(), rows.length.copy()
        chosen = list(contents)
        start[chosen], length[chosen] = fresh.start + len(rows.octets), fresh.length
        octets = np.concatenate([rows.octets, fresh.octets])
        return SectionTable(self.name, ByteRows(octets, start, length), self.alignment, self.group)

    def __len__(self) -> int:
        return len(self.alignment)

    @overload
    def __getitem__(self, row: int) -> Section: ...
    @overload
    def __getitem__(self, row: slice) -> list[Section]: ...
    def __getitem__(self, row: int | slice) -> Section | list[Section]:
        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        start = int(self.content.start[row])
        content = self.content.octets[start : start + int(self.content.length[row])].data
        return Section(self.name[row], content, int(self.alignment[row]), self.group[row])


@dataclass(frozen=True, slots=True)
class SideEdges:
    """Columns: `offset` in the section, `kind`, `target` symbol, `addend`; ascending by offset."""

    content: memoryview
    offset: I64
    kind: U8
    target: I32
    addend: I64


def without_edges(content: memoryview) -> SideEdges:
    none = np.empty(0, dtype=np.int64)
    return SideEdges(content, none, none.astype(np.uint8), none.astype(np.int32), none)


@dataclass(frozen=True)
class SideSection:
    """A section that describes others: unwind tables and debug information. Most of an object's bytes and fixups are
    in these, and a comparison does not look at them, so they are read when somebody does: only then damage inside is
    found, with the errors of the reader. The edges are columns of their own, as in `SideEdges`."""

    name: str
    alignment: int
    flags: int  # of the file, SHF_*: whether strings merge
    entry_size: int
    read: Callable[[], SideEdges]

    @cached_property
    def _read(self) -> SideEdges:
        return self.read()

    @property
    def content(self) -> memoryview:
        return self._read.content

    @property
    def offset(self) -> I64:
        return self._read.offset

    @property
    def kind(self) -> U8:
        return self._read.kind

    @property
    def target(self) -> I32:
        return self._read.target

    @property
    def addend(self) -> I64:
        return self._read.addend


@dataclass(frozen=True, slots=True)
class Member:
    """One of the objects that a graph was merged from: its `source` and the first of its sections."""

    source: str
    first_section: int


NO_TABLES = np.empty((0, 3), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class LinkGraph:
    """`has_all_edges`: whatever leads out of a block has an edge, so that code need not be searched for distances that
    an assembler knew (Mach-O). `tables`: rows of block, start and end of the data that the file says is in its code.
    `exception_tables`: rows of a block of code and a block that says what it catches, where that is not said by
    `.eh_frame`. `format`: of the file, "elf", "macho" or "coff". `least_alignment`: what its assembler may give
    every section, so that blocks aligned to no more say nothing of their variables."""

    path: str
    source: str  # base name of the translation unit as the symbol table says it (STT_FILE); "" if it does not
    machine: str  # "x86_64", "aarch64"
    sections: SectionTable
    blocks: Blocks
    symbols: Symbols
    edges: Edges
    first_edge: I64  # len(blocks) + 1
    side: tuple[SideSection, ...]
    members: tuple[Member, ...] = ()  # of a graph that was merged from several objects
    has_all_edges: bool = False
    tables: I64 = field(default_factory=lambda: NO_TABLES)
    exception_tables: I64 = field(default_factory=lambda: NO_TABLES[:, :2])
    format: str = "elf"
    least_alignment: int = 1

    def content(self, block: int) -> memoryview:
        """The bytes of a block, fixup fields as the file has them; empty for BSS kinds."""
        rows, section = self.sections.content, int(self.blocks.section[block])
        start, offset = int(rows.start[section]), int(self.blocks.offset[block])
        end = min(offset + int(self.blocks.size[block]), int(rows.length[section]))
        return rows.octets[start + offset : start + max(offset, end)].data

    def edges_of(self, block: int) -> slice:
        """Rows of `edges` whose fixup is in `block`."""
        return slice(int(self.first_edge[block]), int(self.first_edge[block + 1]))

    @property
    def sources(self) -> frozenset[str]:
        """`source`, of each member where there are several."""
        return frozenset(member.source for member in self.members) or frozenset((self.source,))

    def block_name(self, block: int) -> str:
        """The name of the block's anchor, or `section+0xoffset` for an unnamed one."""
        name = self.symbols.name[int(self.blocks.anchor[block])]
        if name:
            return name
        return f"{self.sections.name[int(self.blocks.section[block])]}+{int(self.blocks.offset[block]):#x}"
