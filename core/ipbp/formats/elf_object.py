"""An ELF object file of gcc, clang or rustc as a `LinkGraph`: the only place that knows both.

The steps are those of the files beside this one: the checked tables (`elf_file`), what each relocation means
(`elf_references`), where sections are cut (`elf_blocks`); here the pieces become blocks, symbols and edges. All of it
is columns; no step looks at sections, symbols or relocations one by one. What describes others (unwind tables, debug
information) has its place in the graph and is read when it is asked for.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ipbp.arch.fields import WIDTH
from ipbp.arch.x86_64_code import is_branch
from ipbp.errors import IpbpError, Refusal, Refused
from ipbp.formats import elf_file as elf
from ipbp.formats.elf_aarch64 import are_marks
from ipbp.formats.elf_blocks import NOT_PLACED, SECTION_SHIFT, Spans, cut, key
from ipbp.formats.elf_file import ElfFile, ElfRelocations, malformed
from ipbp.formats.elf_references import (
    References,
    decoded,
    element_places,
    references,
    safe_cuts,
    table_places,
    up_to_labels,
)
from ipbp.formats.elf_relocations import edge_kinds, relocation_name, says_nothing
from ipbp.formats.elf_unnamed import with_unnamed_functions
from ipbp.formats.translated import TranslatedFile
from ipbp.graph.columns import I32, Flags
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import (
    ABSOLUTE,
    COMMON,
    I64,
    SIDE_BASE,
    U8,
    UNDEFINED,
    Binding,
    BlockKind,
    Blocks,
    Edges,
    LinkGraph,
    SectionTable,
    SideEdges,
    SideSection,
    Symbols,
    SymbolType,
    Visibility,
    without_edges,
)
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows, distinct, is_one_of

_INIT_TYPES = (elf.SHT_INIT_ARRAY, elf.SHT_FINI_ARRAY, elf.SHT_PREINIT_ARRAY)
_INIT_NAMES = (b".ctors", b".dtors", b".init_array", b".fini_array", b".preinit_array")
_TABLE_TYPES = (0, elf.SHT_SYMTAB, elf.SHT_STRTAB, elf.SHT_RELA, elf.SHT_GROUP, elf.SHT_SYMTAB_SHNDX)
_EXCEPTION_TABLE = b"GCC_except_table"
"""What LLVM calls the exception table of its n-th function: a number and no name."""
_OFFSET_MASK = (1 << SECTION_SHIFT) - 1
_FEW = 1 << 13
"""Relocations of side sections."""


def read_object(content: bytes | memoryview | Any, path: str) -> LinkGraph:
    """The link graph of a relocatable ELF file; `content` is its bytes, or an mmap of them.

    The graph keeps views of `content` and reads its side sections from there. Raises IpbpError: `object-malformed`,
    `object-wrong-architecture`, `object-not-relocatable`, `object-lto`, `object-undecodable`, and when a side section
    is read `object-malformed`, `object-compression`; and Refused with one `relocation-unsupported` for each type of
    relocation that has no edge kind.
    """
    file = elf.read_elf(content, path)
    elf.check_with_lief(file)
    placement = _placement(file)
    _refuse_unknown_kinds(file)
    return graph_of(file, placement)


def graph_of(file: ElfFile, placement: U8) -> LinkGraph:
    """The link graph of checked tables; `placement`: the `BlockKind` of each section, or NOT_PLACED. Errors: as
    `read_object`'s, for what the tables mean together."""
    return _Builder(file, placement).build()


def _placement(file: ElfFile) -> U8:
    """The `BlockKind` of each section, or NOT_PLACED."""
    rows = file.sections
    flags = rows.flags.astype(np.int64)
    is_empty = rows.type == elf.SHT_NOBITS
    relro = rows.name.start_with(b".data.rel.ro")
    starts = np.logical_or.reduce([rows.name.start_with(name) for name in _INIT_NAMES])
    unwind = rows.name.equal(b".eh_frame")
    unwind |= np.isin(rows.type, (elf.SHT_X86_64_UNWIND, elf.SHT_NOTE))
    conditions = [
        (flags & elf.SHF_ALLOC == 0) | unwind | is_one_of(rows.type, _TABLE_TYPES),
        flags & elf.SHF_EXECINSTR != 0,
        (flags & elf.SHF_TLS != 0) & is_empty,
        flags & elf.SHF_TLS != 0,
        starts | is_one_of(rows.type, _INIT_TYPES),
        is_empty,
        (flags & elf.SHF_WRITE != 0) & relro,
        flags & elf.SHF_WRITE != 0,
    ]
    choices = [
        NOT_PLACED,
        BlockKind.CODE,
        BlockKind.TLS_BSS,
        BlockKind.TLS_DATA,
        BlockKind.INIT,
        BlockKind.BSS,
        BlockKind.RELRO,
        BlockKind.DATA,
    ]
    placement = np.select(conditions, choices, BlockKind.RODATA).astype(np.uint8)
    if ((placement != NOT_PLACED) & (flags & elf.SHF_COMPRESSED != 0)).any():
        malformed(file.path, "a section that is loaded is compressed")
    return placement


def _refuse_unknown_kinds(file: ElfFile) -> None:
    numbers, machine = file.tables.types, file.machine
    types = numbers.astype(np.uint32)
    unknown = numbers[(edge_kinds(types, machine) == 0) & ~says_nothing(types, machine)]
    if len(unknown):
        raise Refused(_unsupported(file, int(number)) for number in unknown)


def _kinds(file: ElfFile, placement: U8, relocations: ElfRelocations) -> U8:
    """The edge kind of each relocation, 0 for those that say nothing (R_X86_64_NONE)."""
    kinds = file.edge_kinds(relocations.type)
    width = WIDTH[kinds].astype(np.int64)
    stored = (file.sections.flags[relocations.section] & np.uint64(elf.SHF_COMPRESSED)) == 0
    if (stored & (relocations.offset + width > file.sections.size[relocations.section])).any():
        malformed(file.path, "a relocation reaches past the end of its section")
    if (file.sections.type[relocations.section[kinds != 0]] == elf.SHT_NOBITS).any():
        malformed(file.path, "a relocation is in a section without bytes")
    return _with_branches(file, placement, relocations, kinds)


def _with_branches(file: ElfFile, placement: U8, relocations: ElfRelocations, kinds: U8) -> U8:
    """Calls and jumps to local functions have R_X86_64_PC32, as data has; the instruction tells them apart."""
    holder = relocations.section
    if file.machine != "x86_64":
        return kinds
    rows = np.flatnonzero((kinds == EdgeKind.PCREL32) & (placement[holder] == BlockKind.CODE))
    field = file.sections.start[holder[rows]] + relocations.offset[rows]
    kinds[rows[is_branch(file.octets, field)]] = EdgeKind.BRANCH32
    return kinds


def _unsupported(file: ElfFile, number: int) -> Refusal:
    everything = file.relocations_of(np.ones(len(file.sections), dtype=np.bool_))
    section = int(everything.section[np.flatnonzero(everything.type == number)[0]])
    name = relocation_name(number, file.machine)
    return Refusal(
        "relocation-unsupported",
        f"{file.sections.name[section]} needs a relocation of the type {name}",
        "Build this file without the option that causes it.",
        file=file.path,
    )


@dataclass(frozen=True, slots=True)
class _SymbolMap:
    """From the file's symbols to the graph's. `row`: the graph's row or -1 for sections and private labels."""

    row: I64
    kept: I64


@dataclass(frozen=True, slots=True)
class _SideFixups:
    """Of side sections, ordered by `section` and `offset`; as in `SideEdges`."""

    section: I64
    offset: I64
    kind: U8
    target: I32
    addend: I64


class _Builder:
    """The tables of one object on their way to a graph. Every method computes from what `__init__` holds."""

    def __init__(self, file: ElfFile, placement: U8) -> None:
        self.file, self.placement = file, placement
        rows = file.sections
        excluded = (rows.flags & np.uint64(elf.SHF_EXCLUDE)) != 0
        is_side = (placement == NOT_PLACED) & ~is_one_of(rows.type, _TABLE_TYPES) & ~excluded
        self.side_sections = np.flatnonzero(is_side)
        self.side_row = np.full(len(rows), -1, dtype=np.int64)
        self.side_row[self.side_sections] = np.arange(len(self.side_sections))
        self.symbols = self._symbol_map()
        # What the process loads; unwind tables too, for an address in them is the start of something.
        loaded = (rows.flags & np.uint64(elf.SHF_ALLOC)) != 0
        self.relocations = file.relocations_of((placement != NOT_PLACED) | (is_side & loaded))
        self.kinds = _kinds(file, placement, self.relocations)
        self._check_homes()
        self._is_side_table = self.side_row[file.tables.holder] >= 0
        self._sides: _SideFixups | None = None

    def build(self) -> LinkGraph:
        spans, meant = self._spans_and_places()
        section_map, sections = self._sections(spans)
        table = self._symbol_table(spans)
        blocks, anchors = self._blocks(spans, section_map, table)
        symbols = self._with_anchors(table, spans, anchors)
        edges, first_edge = self._edges(spans, blocks, meant)
        side = tuple(self._side_section(int(section), spans, blocks) for section in self.side_sections)
        return LinkGraph(
            self.file.path, self._source(), self.file.machine, sections, blocks, symbols, edges, first_edge, side
        )

    def _symbol_map(self) -> _SymbolMap:
        symbols, names = self.file.symbols, self.file.symbols.name
        named = names.are_given() & ~names.start_with(b".L") & ~names.start_with(_EXCEPTION_TABLE)
        if self.file.machine == "aarch64":
            named &= ~(are_marks(names, symbols.type) & (symbols.binding == 0))
        keep = named & (symbols.type != elf.STT_SECTION) & (symbols.type != elf.STT_FILE)
        # Row 0 is the gABI's empty symbol; a relocation without a symbol uses it as the number zero.
        keep[0] = self.file.tables.refers[0]
        # The signature of a section group may stand in the group itself; nothing refers to it.
        home = np.maximum(symbols.section, 0)
        keep &= (home == 0) | (self.placement[home] != NOT_PLACED) | (self.side_row[home] >= 0)
        kept = np.flatnonzero(keep)
        row = np.full(len(symbols), -1, dtype=np.int64)
        row[kept] = np.arange(len(kept))
        return _SymbolMap(row, kept)

    def _check_homes(self) -> None:
        """Every symbol that something refers to is kept, or stands for a place in a section that is."""
        symbols = self.file.symbols
        home = np.maximum(symbols.section, 0)
        lost = self.file.tables.refers & (self.symbols.row < 0)
        lost &= (symbols.section <= 0) | ((self.placement[home] == NOT_PLACED) & (self.side_row[home] < 0))
        if lost.any():
            malformed(self.file.path, "a relocation refers to a section that is not loaded")

    def _spans_and_places(self) -> tuple[Spans, References]:
        """The blocks to be; and what the relocations that name a section mean."""
        file, placement, relocations = self.file, self.placement, self.relocations
        sizes = file.sections.size
        refs = self._references(relocations, self.kinds)
        starts, lengths = with_unnamed_functions(file, placement, refs, *self._block_symbols())
        named = starts
        if isinstance(file, TranslatedFile):
            lengths = up_to_labels(file, placement, refs, starts, lengths)
            starts, lengths = (np.concatenate(pair) for pair in zip((starts, lengths), file.atoms, strict=True))
        fixups = np.sort(key(relocations.section, relocations.offset)[self.kinds != 0])
        splits = refs.address & (placement[refs.home] != BlockKind.CODE)
        homes = distinct(file.symbols.section[file.tables.refers & (file.symbols.section > 0)])

        def cut_at(cuts: I64) -> Spans:
            spans = cut(file, placement, starts, lengths, cuts, fixups, np.sort(refs.keys(sizes)), homes)
            return spans if named is starts else replace(spans, named=np.isin(spans.start, named))

        in_range = (refs.place >= 0) & (refs.place < sizes[refs.home])
        cuts = refs.keys(sizes)[splits & in_range]
        spans = cut_at(cuts)
        refs, access = decoded(file, placement, refs, spans)
        more = safe_cuts(file, refs, access, spans, fixups)
        if len(more):
            spans = cut_at(np.concatenate([cuts, more]))
        return spans, element_places(file, table_places(file, refs, spans))

    def _references(self, relocations: ElfRelocations, kinds: U8) -> References:
        """Those of the relocations that name a section which makes blocks, or a private label in one."""
        home = self.file.symbols.section[relocations.symbol]
        by_place = (home > 0) & (self.symbols.row[relocations.symbol] < 0) & (kinds != 0)
        by_place &= self.placement[np.maximum(home, 0)] != NOT_PLACED
        return references(self.file, self.placement, relocations, kinds, np.flatnonzero(by_place))

    def _block_symbols(self) -> tuple[I64, I64]:
        """Keys and sizes of the symbols that start blocks: in code functions and global labels, else all."""
        symbols, kept = self.file.symbols, self.symbols.kept
        home = symbols.section[kept]
        placed = (home > 0) & (self.placement[np.maximum(home, 0)] != NOT_PLACED)
        function = (symbols.type[kept] == SymbolType.FUNCTION) | (symbols.type[kept] == SymbolType.IFUNC)
        starts_code = function | (symbols.binding[kept] != Binding.LOCAL)
        chosen = kept[placed & ((self.placement[np.maximum(home, 0)] != BlockKind.CODE) | starts_code)]
        start, size = key(symbols.section[chosen], symbols.value[chosen]), symbols.size[chosen]
        return start, self._with_literals(start, size) if self.file.machine == "aarch64" else size

    def _with_literals(self, start: I64, size: I64) -> I64:
        """The sizes with the literal pool that follows a function, which its code reads without a fixup. A pool begins
        at a mark and reaches to the next symbol."""
        symbols = self.file.symbols
        marked = symbols.name.start_with(b"$d") & are_marks(symbols.name, symbols.type) & (symbols.section > 0)
        marked &= self.placement[np.maximum(symbols.section, 0)] == BlockKind.CODE
        pools = np.sort(key(symbols.section[marked], symbols.value[marked]))
        section_end = key(start >> SECTION_SHIFT, self.file.sections.size[start >> SECTION_SHIFT])
        places = np.append(distinct(start), np.iinfo(np.int64).max)
        following = np.minimum(places[np.searchsorted(places, start, side="right")], section_end)
        has_pool = np.searchsorted(pools, following) > np.searchsorted(pools, start + size)
        return np.where(has_pool & (size > 0), following - start, size)

    def _sections(self, spans: Spans) -> tuple[I64, SectionTable]:
        """The graph's sections, those that hold blocks, and each file section's row among them."""
        used = distinct(spans.start >> SECTION_SHIFT)
        rows = self.file.sections
        section_map = np.full(len(rows), -1, dtype=np.int64)
        section_map[used] = np.arange(len(used))
        empty = rows.type[used] == elf.SHT_NOBITS
        content = ByteRows(self.file.octets, rows.start[used], np.where(empty, 0, rows.size[used]))
        return section_map, SectionTable(rows.name.take(used), content, rows.alignment[used], rows.group.take(used))

    def _symbol_table(self, spans: Spans) -> Symbols:
        """The file's own symbols as the graph has them; anchors follow in `_with_anchors`."""
        symbols, kept = self.file.symbols, self.symbols.kept
        home, value = symbols.section[kept], symbols.value[kept]
        placed = (home > 0) & (self.placement[np.maximum(home, 0)] != NOT_PLACED)
        block = np.full(len(kept), UNDEFINED, dtype=np.int64)
        offset = np.zeros(len(kept), dtype=np.int64)
        keys = key(home[placed], value[placed])
        block[placed] = spans.find(keys)
        offset[placed] = keys - spans.start[block[placed]]
        side = (home > 0) & ~placed
        block[side] = SIDE_BASE - self.side_row[home[side]]
        block[home == -elf.SHN_ABS] = ABSOLUTE
        block[home == -elf.SHN_COMMON] = COMMON
        block[kept == 0] = ABSOLUTE
        offset[home <= 0] = value[home <= 0]
        offset[side] = value[side]
        binding = np.select(
            [symbols.binding[kept] == 0, symbols.binding[kept] == 2], [Binding.LOCAL, Binding.WEAK], Binding.GLOBAL
        )
        names = symbols.name.take(kept)
        return Symbols(
            names if isinstance(self.file, TranslatedFile) else names.without_versions(of_all=False),
            block.astype(np.int32),
            offset,
            symbols.size[kept],
            binding.astype(np.uint8),
            self._types(kept),
            symbols.visibility[kept],
        )

    def _types(self, kept: I64) -> U8:
        """gABI types; STT_COMMON (5) is an object, everything else that is unknown has none."""
        types = self.file.symbols.type[kept]
        known = np.isin(types, [int(kind) for kind in SymbolType])
        return np.where(known, types, np.where(types == 5, SymbolType.OBJECT, SymbolType.NONE)).astype(np.uint8)

    def _blocks(self, spans: Spans, section_map: I64, table: Symbols) -> tuple[Blocks, I64]:
        """The block table and the blocks that need an anchor of their own, in the order of those anchors."""
        rows = self.file.sections
        section, offset = spans.start >> SECTION_SHIFT, spans.start & _OFFSET_MASK
        anchor = _named_anchors(table, len(section))
        unnamed = np.flatnonzero(anchor < 0)
        anchor[unnamed] = len(table) + np.arange(len(unnamed))
        lowest_bit = np.where(offset == 0, np.iinfo(np.int64).max, offset & -offset)
        merged = (rows.flags[section] & np.uint64(elf.SHF_MERGE)) != 0
        blocks = Blocks(
            section=section_map[section].astype(np.int32),
            offset=offset,
            size=spans.end - spans.start,
            alignment=np.minimum(rows.alignment[section], lowest_bit),
            kind=self.placement[section],
            anchor=anchor.astype(np.int32),
            mergeable=merged & (self.placement[section] == BlockKind.RODATA),
        )
        return blocks, unnamed

    def _with_anchors(self, table: Symbols, spans: Spans, unnamed: I64) -> Symbols:
        count, sides = len(unnamed), len(self.side_sections)
        side_names = self.file.sections.name.take(self.side_sections)
        tls = is_one_of(self.placement[spans.start[unnamed] >> SECTION_SHIFT], (BlockKind.TLS_DATA, BlockKind.TLS_BSS))
        extra = count + sides
        type_ = np.zeros(extra, dtype=np.uint8)
        type_[:count][tls] = SymbolType.TLS
        side_block = SIDE_BASE - np.arange(sides)
        return Symbols(
            name=Names(_one_behind_the_other(table.name.rows, count, side_names.rows)),
            block=np.concatenate([table.block, unnamed, side_block]).astype(np.int32),
            offset=np.concatenate([table.offset, np.zeros(extra, dtype=np.int64)]),
            size=np.concatenate([table.size, (spans.end - spans.start)[unnamed], np.zeros(sides, dtype=np.int64)]),
            binding=np.concatenate([table.binding, np.full(extra, Binding.LOCAL, dtype=np.uint8)]),
            type=np.concatenate([table.type, type_]),
            visibility=np.concatenate([table.visibility, np.full(extra, Visibility.DEFAULT, dtype=np.uint8)]),
        )

    def _targets(self, relocations: ElfRelocations, refs: References, spans: Spans, blocks: Blocks) -> tuple[I64, I64]:
        """The symbol that each relocation's edge leads to, and the addend there."""
        symbols = self.file.symbols
        target = self.symbols.row[relocations.symbol]
        addend = relocations.addend.copy()
        block = spans.find(refs.keys(self.file.sections.size))
        target[refs.row] = blocks.anchor[block]
        # The label's own value is part of S, the block's start is the anchor's S.
        addend[refs.row] += refs.base - (spans.start[block] & _OFFSET_MASK)
        home = np.maximum(symbols.section[relocations.symbol], 0)
        to_side = (target < 0) & (self.side_row[home] >= 0)
        side_anchor = len(self.symbols.kept) + int(np.count_nonzero(blocks.anchor >= len(self.symbols.kept)))
        target[to_side] = side_anchor + self.side_row[home[to_side]]
        addend[to_side] += symbols.value[relocations.symbol[to_side]]
        return target, addend

    def _edges(self, spans: Spans, blocks: Blocks, refs: References) -> tuple[Edges, I64]:
        relocations = self.relocations
        target, addend = self._targets(relocations, refs, spans, blocks)
        row = np.flatnonzero((self.kinds != 0) & (self.placement[relocations.section] != NOT_PLACED))
        places = key(relocations.section[row], relocations.offset[row])
        if (places[1:] < places[:-1]).any():
            order = np.argsort(places, kind="stable")
            row, places = row[order], places[order]
        block, kinds = spans.find(places), self.kinds[row]
        if (places + WIDTH[kinds] > spans.end[block]).any() or (places < spans.start[block]).any():
            malformed(self.file.path, "a relocation reaches from one symbol into the next")
        edges = Edges(
            block.astype(np.int32), places - spans.start[block], kinds, target[row].astype(np.int32), addend[row]
        )
        first_edge = np.searchsorted(block, np.arange(len(spans.start) + 1)).astype(np.int64)
        return edges, first_edge

    def _side_section(self, section: int, spans: Spans, blocks: Blocks) -> SideSection:
        rows = self.file.sections
        return SideSection(
            name=rows.name[section],
            alignment=int(rows.alignment[section]),
            flags=int(rows.flags[section]) & ~elf.SHF_COMPRESSED,
            entry_size=int(rows.entry_size[section]),
            read=partial(self._side_edges, section, spans, blocks),
        )

    def _side_edges(self, section: int, spans: Spans, blocks: Blocks) -> SideEdges:
        """The content and edges of one side section, read now."""
        file, content = self.file, self.file.section_content(section)
        if section not in file.tables.holder:
            return without_edges(content)
        found = self._side_fixups(section, spans, blocks)
        first, last = np.searchsorted(found.section, (section, section + 1)).tolist()
        offset, kinds = found.offset[first:last], found.kind[first:last]
        if (offset + WIDTH[kinds] > len(content)).any():
            malformed(file.path, f"a relocation lies outside {file.sections.name[section]}")
        return SideEdges(content, offset, kinds, found.target[first:last], found.addend[first:last])

    def _side_fixups(self, section: int, spans: Spans, blocks: Blocks) -> _SideFixups:
        """Those of one side section; where there are few, of all of them, which takes as long then. What is damaged
        counts when its own section is read."""
        if self._sides is None and int(self.file.tables.count[self._is_side_table].sum()) <= _FEW:
            with contextlib.suppress(IpbpError):
                self._sides = self._fixups(self.side_row >= 0, spans, blocks)
        if self._sides is not None:
            return self._sides
        return self._fixups(np.arange(len(self.file.sections)) == section, spans, blocks)

    def _fixups(self, holders: Flags, spans: Spans, blocks: Blocks) -> _SideFixups:
        file, relocations = self.file, self.file.relocations_of(holders)
        kinds = _kinds(file, self.placement, relocations)
        refs = element_places(file, table_places(file, self._references(relocations, kinds), spans))
        target, addend = self._targets(relocations, refs, spans, blocks)
        row = np.flatnonzero(kinds)
        row = row[np.lexsort((relocations.offset[row], relocations.section[row]))]
        columns = relocations.section[row], relocations.offset[row], kinds[row], target[row].astype(np.int32)
        return _SideFixups(*columns, addend[row])

    def _source(self) -> str:
        """The first STT_FILE symbol: gcc and clang write the name as the command line had it."""
        if isinstance(self.file, TranslatedFile):
            return self.file.source
        files = np.flatnonzero(self.file.symbols.type == elf.STT_FILE)
        name = self.file.symbols.name[int(files[0])] if len(files) else ""
        return name.rsplit("/", 1)[-1]


def _named_anchors(table: Symbols, blocks: int) -> npt.NDArray[np.int64]:
    """For each block the symbol that stands for it, or -1: at its start, typed before untyped, global before weak
    before local, then in the file's order."""
    at_start = np.flatnonzero((table.block >= 0) & (table.offset == 0))
    untyped = table.type[at_start] == SymbolType.NONE
    scope = np.array([2, 0, 1])[table.binding[at_start]]
    order = at_start[np.lexsort((at_start, scope, untyped, table.block[at_start]))]
    owner, first = np.unique(table.block[order], return_index=True)
    anchor = np.full(blocks, -1, dtype=np.int64)
    anchor[owner] = order[first]
    return anchor


def _one_behind_the_other(first: ByteRows, empty: int, last: ByteRows) -> ByteRows:
    """The rows of both, `empty` rows without bytes between them; in one buffer, if they are not in one already."""
    if first.octets is not last.octets:
        both = first.followed_by(last)
        first, last = both.take(np.arange(len(first))), both.take(np.arange(len(first), len(both)))
    nothing = np.zeros(empty, dtype=np.int64)
    start, length = ((one, nothing, other) for one, other in ((first.start, last.start), (first.length, last.length)))
    return ByteRows(first.octets, np.concatenate(start), np.concatenate(length))
