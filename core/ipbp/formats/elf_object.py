"""An ELF object file of gcc or clang for x86-64 as a `LinkGraph`: the only place that knows both.

The steps are those of the files beside this one: the checked tables (`elf_file`), what each relocation means
(`elf_references`), where sections are cut (`elf_blocks`); here the pieces become blocks, symbols and edges. All of it
is columns; no step looks at relocations one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipbp.arch.x86_64 import WIDTH
from ipbp.arch.x86_64_code import is_branch
from ipbp.errors import Refusal, Refused
from ipbp.formats import elf_file as elf
from ipbp.formats.elf_blocks import NOT_PLACED, SECTION_SHIFT, Spans, cut, key
from ipbp.formats.elf_file import ElfFile, malformed
from ipbp.formats.elf_references import decoded, element_places, references, safe_cuts, table_places
from ipbp.formats.elf_x86_64 import NONE, edge_kinds, relocation_name
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import (
    ABSOLUTE,
    COMMON,
    I32,
    I64,
    SIDE_BASE,
    U8,
    UNDEFINED,
    Binding,
    BlockKind,
    Blocks,
    Edges,
    LinkGraph,
    Section,
    SideSection,
    Symbols,
    SymbolType,
    Visibility,
)

_INIT_TYPES = (elf.SHT_INIT_ARRAY, elf.SHT_FINI_ARRAY, elf.SHT_PREINIT_ARRAY)
_INIT_NAMES = (".ctors", ".dtors", ".init_array", ".fini_array", ".preinit_array")
_TABLE_TYPES = (0, elf.SHT_SYMTAB, elf.SHT_STRTAB, elf.SHT_RELA, elf.SHT_GROUP, elf.SHT_SYMTAB_SHNDX)
_OFFSET_MASK = (1 << SECTION_SHIFT) - 1


def read_object(content: bytes | memoryview | Any, path: str) -> LinkGraph:
    """The link graph of a relocatable x86-64 ELF file; `content` is its bytes, or an mmap of them.

    The graph keeps views of `content`. Raises IpbpError: `object-malformed`, `object-wrong-architecture`,
    `object-not-relocatable`, `object-lto`, `object-compression`, `object-undecodable`; and Refused with one
    `relocation-unsupported` for each type of relocation that has no edge kind.
    """
    file = elf.read_elf(content, path)
    elf.check_with_lief(file)
    placement = _placement(file)
    kinds = _kinds(file, placement)
    return _Builder(file, placement, kinds).build()


def _placement(file: ElfFile) -> U8:
    """The `BlockKind` of each section, or NOT_PLACED."""
    rows = file.sections
    flags = rows.flags.astype(np.int64)
    is_empty = rows.type == elf.SHT_NOBITS
    relro = np.array([name.startswith(".data.rel.ro") for name in rows.name], dtype=np.bool_)
    starts = np.array([name.startswith(_INIT_NAMES) for name in rows.name], dtype=np.bool_)
    unwind = np.array([name == ".eh_frame" for name in rows.name], dtype=np.bool_)
    unwind |= np.isin(rows.type, (elf.SHT_X86_64_UNWIND, elf.SHT_NOTE))
    conditions = [
        (flags & elf.SHF_ALLOC == 0) | unwind | np.isin(rows.type, _TABLE_TYPES),
        flags & elf.SHF_EXECINSTR != 0,
        (flags & elf.SHF_TLS != 0) & is_empty,
        flags & elf.SHF_TLS != 0,
        starts | np.isin(rows.type, _INIT_TYPES),
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
    return np.select(conditions, choices, BlockKind.RODATA).astype(np.uint8)


def _kinds(file: ElfFile, placement: U8) -> U8:
    """The edge kind of each relocation, 0 for those that say nothing (R_X86_64_NONE)."""
    relocations = file.relocations
    kinds = edge_kinds(relocations.type)
    unknown = np.unique(relocations.type[(kinds == 0) & (relocations.type != NONE)])
    if len(unknown):
        raise Refused(_unsupported(file, int(number)) for number in unknown)
    width = WIDTH[kinds].astype(np.int64)
    stored = (file.sections.flags[relocations.section] & np.uint64(elf.SHF_COMPRESSED)) == 0
    if (stored & (relocations.offset + width > file.sections.size[relocations.section])).any():
        malformed(file.path, "a relocation reaches past the end of its section")
    if (file.sections.type[relocations.section[kinds != 0]] == elf.SHT_NOBITS).any():
        malformed(file.path, "a relocation is in a section without bytes")
    return _with_branches(file, placement, kinds)


def _with_branches(file: ElfFile, placement: U8, kinds: U8) -> U8:
    """Calls and jumps to local functions have R_X86_64_PC32, as data has; the instruction tells them apart."""
    holder = file.relocations.section
    rows = np.flatnonzero((kinds == EdgeKind.PCREL32) & (placement[holder] == BlockKind.CODE))
    octets = np.frombuffer(file.content, np.uint8)
    field = file.sections.start[holder[rows]] + file.relocations.offset[rows]
    kinds[rows[is_branch(octets, field)]] = EdgeKind.BRANCH32
    return kinds


def _unsupported(file: ElfFile, number: int) -> Refusal:
    section = int(file.relocations.section[np.flatnonzero(file.relocations.type == number)[0]])
    name = relocation_name(number)
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


class _Builder:
    """The tables of one object on their way to a graph. Every method computes from what `__init__` holds."""

    def __init__(self, file: ElfFile, placement: U8, kinds: U8) -> None:
        self.file, self.placement, self.kinds = file, placement, kinds
        rows = file.sections
        excluded = (rows.flags & np.uint64(elf.SHF_EXCLUDE)) != 0
        is_side = (placement == NOT_PLACED) & ~np.isin(rows.type, _TABLE_TYPES) & ~excluded
        self.side_sections = np.flatnonzero(is_side)
        self.side_row = np.full(len(rows), -1, dtype=np.int64)
        self.side_row[self.side_sections] = np.arange(len(self.side_sections))
        self.symbols = self._symbol_map()

    def build(self) -> LinkGraph:
        spans, meant = self._spans_and_places()
        section_map, sections = self._sections(spans)
        names, table = self._symbol_table(spans)
        blocks, anchors = self._blocks(spans, section_map, table, first_anchor=len(names))
        symbols = self._with_anchors(names, table, spans, anchors)
        row, target, addend = self._targets(spans, blocks, meant)
        edges, first_edge = self._edges(spans, row, target, addend)
        side = self._side(row, target, addend)
        return LinkGraph(self.file.path, self._source(), "x86_64", sections, blocks, symbols, edges, first_edge, side)

    def _symbol_map(self) -> _SymbolMap:
        symbols = self.file.symbols
        named = np.array([bool(name) and not name.startswith(".L") for name in symbols.name], dtype=np.bool_)
        keep = named & (symbols.type != elf.STT_SECTION) & (symbols.type != elf.STT_FILE)
        # Row 0 is the gABI's empty symbol; a relocation without a symbol uses it as the number zero.
        keep[0] = bool((self.file.relocations.symbol[self.kinds != 0] == 0).any())
        # The signature of a section group may stand in the group itself; nothing refers to it.
        home = np.maximum(symbols.section, 0)
        keep &= (home == 0) | (self.placement[home] != NOT_PLACED) | (self.side_row[home] >= 0)
        kept = np.flatnonzero(keep)
        row = np.full(len(symbols.name), -1, dtype=np.int64)
        row[kept] = np.arange(len(kept))
        return _SymbolMap(row, kept)

    def _spans_and_places(self) -> tuple[Spans, tuple[I64, I64]]:
        """The blocks to be; and for relocations that name a section: their rows, and the keys that they mean."""
        file, placement = self.file, self.placement
        relocations, symbols, sizes = file.relocations, file.symbols, file.sections.size
        home = symbols.section[relocations.symbol]
        by_place = (home > 0) & (self.symbols.row[relocations.symbol] < 0) & (self.kinds != 0)
        by_place &= placement[np.maximum(home, 0)] != NOT_PLACED
        holder_used = (placement != NOT_PLACED) | (self.side_row >= 0)
        by_place &= holder_used[relocations.section]
        refs = references(file, placement, self.kinds, np.flatnonzero(by_place))

        starts, lengths = self._block_symbols()
        fixups = np.sort(key(relocations.section, relocations.offset)[self.kinds != 0])
        splits = refs.address & (placement[refs.home] != BlockKind.CODE)

        def cut_at(cuts: I64) -> Spans:
            return cut(file, placement, starts, lengths, cuts, fixups, np.sort(refs.keys(sizes)))

        in_range = (refs.place >= 0) & (refs.place < sizes[refs.home])
        cuts = refs.keys(sizes)[splits & in_range]
        spans = cut_at(cuts)
        refs, access = decoded(file, placement, refs, spans)
        more = safe_cuts(file, refs, access, spans, fixups)
        spans = cut_at(np.concatenate([cuts, more]))
        refs = element_places(file, table_places(file, refs, spans))
        return spans, (refs.row, refs.keys(sizes))

    def _block_symbols(self) -> tuple[I64, I64]:
        """Keys and sizes of the symbols that start blocks: in code functions and global labels, else all."""
        symbols, kept = self.file.symbols, self.symbols.kept
        home = symbols.section[kept]
        placed = (home > 0) & (self.placement[np.maximum(home, 0)] != NOT_PLACED)
        function = (symbols.type[kept] == SymbolType.FUNCTION) | (symbols.type[kept] == SymbolType.IFUNC)
        starts_code = function | (symbols.binding[kept] != Binding.LOCAL)
        chosen = kept[placed & ((self.placement[np.maximum(home, 0)] != BlockKind.CODE) | starts_code)]
        return key(symbols.section[chosen], symbols.value[chosen]), symbols.size[chosen]

    def _sections(self, spans: Spans) -> tuple[I64, tuple[Section, ...]]:
        """The graph's sections, those that hold blocks, and each file section's row among them."""
        used = np.unique(spans.start >> SECTION_SHIFT)
        rows = self.file.sections
        section_map = np.full(len(rows), -1, dtype=np.int64)
        section_map[used] = np.arange(len(used))
        alignment = rows.alignment.tolist()
        content = self.file.section_content
        sections = tuple(Section(rows.name[s], content(s), alignment[s], rows.group[s]) for s in used.tolist())
        return section_map, sections

    def _symbol_table(self, spans: Spans) -> tuple[list[str], Symbols]:
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
        names = [symbols.name[row] for row in kept.tolist()]
        table = Symbols(
            names,
            block.astype(np.int32),
            offset,
            symbols.size[kept],
            binding.astype(np.uint8),
            self._types(kept),
            symbols.visibility[kept],
        )
        return names, table

    def _types(self, kept: I64) -> U8:
        """gABI types; STT_COMMON (5) is an object, everything else that is unknown has none."""
        types = self.file.symbols.type[kept]
        known = np.isin(types, [int(kind) for kind in SymbolType])
        return np.where(known, types, np.where(types == 5, SymbolType.OBJECT, SymbolType.NONE)).astype(np.uint8)

    def _blocks(self, spans: Spans, section_map: I64, table: Symbols, first_anchor: int) -> tuple[Blocks, I64]:
        """The block table and the blocks that need an anchor of their own, in the order of those anchors."""
        rows = self.file.sections
        section, offset = spans.start >> SECTION_SHIFT, spans.start & _OFFSET_MASK
        anchor = _named_anchors(table, len(section))
        unnamed = np.flatnonzero(anchor < 0)
        anchor[unnamed] = first_anchor + np.arange(len(unnamed))
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

    def _with_anchors(self, names: list[str], table: Symbols, spans: Spans, unnamed: I64) -> Symbols:
        count, sides = len(unnamed), len(self.side_sections)
        tls = np.isin(self.placement[spans.start[unnamed] >> SECTION_SHIFT], (BlockKind.TLS_DATA, BlockKind.TLS_BSS))
        extra = count + sides
        type_ = np.zeros(extra, dtype=np.uint8)
        type_[:count][tls] = SymbolType.TLS
        side_block = SIDE_BASE - np.arange(sides)
        return Symbols(
            name=names + [""] * count + [self.file.sections.name[s] for s in self.side_sections.tolist()],
            block=np.concatenate([table.block, unnamed, side_block]).astype(np.int32),
            offset=np.concatenate([table.offset, np.zeros(extra, dtype=np.int64)]),
            size=np.concatenate([table.size, (spans.end - spans.start)[unnamed], np.zeros(sides, dtype=np.int64)]),
            binding=np.concatenate([table.binding, np.full(extra, Binding.LOCAL, dtype=np.uint8)]),
            type=np.concatenate([table.type, type_]),
            visibility=np.concatenate([table.visibility, np.full(extra, Visibility.DEFAULT, dtype=np.uint8)]),
        )

    def _targets(self, spans: Spans, blocks: Blocks, meant: tuple[I64, I64]) -> tuple[I64, I32, I64]:
        """Rows of the relocations that become edges, and each one's target symbol and addend."""
        relocations, symbols = self.file.relocations, self.file.symbols
        target = self.symbols.row[relocations.symbol]
        addend = relocations.addend.copy()
        rows, keys = meant
        block = spans.find(keys)
        target[rows] = blocks.anchor[block]
        # The label's own value is part of S, the block's start is the anchor's S.
        label = relocations.symbol[rows]
        addend[rows] += symbols.value[label] - (spans.start[block] & _OFFSET_MASK)
        used = (self.placement != NOT_PLACED) | (self.side_row >= 0)
        wanted = (self.kinds != 0) & used[relocations.section]
        home = symbols.section[relocations.symbol]
        to_side = wanted & (target < 0) & (home > 0)
        to_side &= self.side_row[np.maximum(home, 0)] >= 0
        side_anchor = len(self.symbols.kept) + int(np.count_nonzero(blocks.anchor >= len(self.symbols.kept)))
        target[to_side] = side_anchor + self.side_row[home[to_side]]
        addend[to_side] += symbols.value[relocations.symbol[to_side]]
        if (wanted & (target < 0)).any():
            malformed(self.file.path, "a relocation refers to a section that is not loaded")
        row = np.flatnonzero(wanted)
        return row, target[row].astype(np.int32), addend[row]

    def _edges(self, spans: Spans, row: I64, target: I32, addend: I64) -> tuple[Edges, I64]:
        relocations = self.file.relocations
        inside = self.placement[relocations.section[row]] != NOT_PLACED
        row, target, addend = row[inside], target[inside], addend[inside]
        places = key(relocations.section[row], relocations.offset[row])
        order = np.argsort(places, kind="stable")
        row, target, addend, places = row[order], target[order], addend[order], places[order]
        block = spans.find(places)
        kinds = self.kinds[row]
        if (places + WIDTH[kinds] > spans.end[block]).any() or (places < spans.start[block]).any():
            malformed(self.file.path, "a relocation reaches from one symbol into the next")
        edges = Edges(block.astype(np.int32), places - spans.start[block], kinds, target, addend)
        first_edge = np.searchsorted(block, np.arange(len(spans.start) + 1)).astype(np.int64)
        return edges, first_edge

    def _side(self, row: I64, target: I32, addend: I64) -> tuple[SideSection, ...]:
        rows, relocations = self.file.sections, self.file.relocations
        holder = self.side_row[relocations.section[row]]
        order = np.flatnonzero(holder >= 0)
        order = order[np.lexsort((relocations.offset[row[order]], holder[order]))]
        bounds = np.searchsorted(holder[order], np.arange(len(self.side_sections) + 1)).tolist()
        result = []
        for index, section in enumerate(self.side_sections.tolist()):
            part = order[bounds[index] : bounds[index + 1]]
            content = self.file.section_content(section)
            fixups = row[part]
            kinds = self.kinds[fixups]
            if (relocations.offset[fixups] + WIDTH[kinds] > len(content)).any():
                malformed(self.file.path, f"a relocation lies outside {rows.name[section]}")
            result.append(
                SideSection(
                    name=rows.name[section],
                    content=content,
                    alignment=int(rows.alignment[section]),
                    flags=int(rows.flags[section]) & ~elf.SHF_COMPRESSED,
                    entry_size=int(rows.entry_size[section]),
                    offset=relocations.offset[fixups],
                    kind=kinds,
                    target=target[part],
                    addend=addend[part],
                )
            )
        return tuple(result)

    def _source(self) -> str:
        """The first STT_FILE symbol: gcc and clang write the name as the command line had it."""
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
