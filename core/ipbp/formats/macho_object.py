"""A relocatable Mach-O file of clang or rustc as a `LinkGraph`.

A Mach-O linker moves atoms: what lies between two symbols of a section, where the file allows it
(MH_SUBSECTIONS_VIA_SYMBOLS; an `.alt_entry` is a second way into the atom before it). Literals are known by what they
hold. That is what blocks are, so this file says which is which and leaves the rest to the reader of all formats
(`translated`). Names lose the underscore that compilers put before them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ipbp.errors import IpbpError
from ipbp.formats import elf_file as elf
from ipbp.formats import macho_file as macho
from ipbp.formats.elf_blocks import NOT_PLACED, key
from ipbp.formats.elf_file import ElfSections, ElfSymbols, malformed
from ipbp.formats.elf_object import graph_of
from ipbp.formats.macho_file import MachoFile, MachoSections, MachoSymbols, read_macho
from ipbp.formats.macho_relocations import read_relocations
from ipbp.formats.translated import TranslatedFile, block_at, described, no_names, sizes_to_next, translated
from ipbp.graph.columns import I64, U8, Flags
from ipbp.graph.model import NO_TABLES, Binding, BlockKind, LinkGraph, SymbolType, Visibility
from ipbp.graph.names import Names
from ipbp.graph.rows import distinct, is_one_of

_STRING, _LITERALS = macho.S_CSTRING_LITERALS, {macho.S_4BYTE_LITERALS: 4, macho.S_8BYTE_LITERALS: 8}
_ENTRY_SIZES = {_STRING: 1, **_LITERALS, macho.S_16BYTE_LITERALS: 16}
_AT_START = (macho.S_MOD_INIT_FUNC_POINTERS, macho.S_MOD_TERM_FUNC_POINTERS, macho.S_INIT_FUNC_OFFSETS)
_COMPACT_UNWIND = b"__LD,__compact_unwind"
_SIDE = ("__LD,__compact_unwind", "__TEXT,__eh_frame")
_KINDS = {
    **dict.fromkeys((*_AT_START, macho.S_THREAD_LOCAL_INIT_FUNCTION_POINTERS), BlockKind.INIT),
    macho.S_THREAD_LOCAL_REGULAR: BlockKind.TLS_DATA,
    macho.S_THREAD_LOCAL_ZEROFILL: BlockKind.TLS_BSS,
    macho.S_THREAD_LOCAL_VARIABLES: BlockKind.TLS_DESCRIPTORS,
    macho.S_ZEROFILL: BlockKind.BSS,
    macho.S_GB_ZEROFILL: BlockKind.BSS,
}


def read_object(content: Any, path: str) -> LinkGraph:
    """The link graph of a relocatable Mach-O file for x86-64 or AArch64; `content` as for `elf_object.read_object`.

    Raises IpbpError: `object-malformed`, `object-wrong-architecture`, `object-not-relocatable`, `object-undecodable`;
    and Refused with one `relocation-unsupported` for each kind of relocation that has no edge kind.
    """
    file = read_macho(content, path)
    if file.kind != macho.MH_OBJECT:
        raise IpbpError(
            "object-not-relocatable",
            f"{path}: this is a linked file, not an object file",
            "Give the .o files that the compiler wrote.",
        )
    macho.check_with_lief(file)
    if not file.symbols.in_place.all():
        malformed(path, "a symbol lies outside its section")
    sections, symbols, placement = _sections(file), _symbols(file), placement_of(file.sections)
    is_atom = np.append(np.zeros(1 + len(file.sections), dtype=np.bool_), _begin_atoms(file))
    limit = np.append(0, file.sections.size)
    starts = key(symbols.section[is_atom], symbols.value[is_atom])
    bounds = distinct(np.concatenate([starts, key(np.arange(len(limit)), np.zeros_like(limit))]))
    relocations = read_relocations(file, bounds)
    atoms = _private_atoms(file, symbols, placement)
    tables = sections, symbols, relocations
    made = translated(path, file.content, file.octets, file.machine, tables, "", atoms, ends_at_labels=False)
    graph = graph_of(made, placement)
    # What an assembler may not take apart it may compute, and only that.
    return replace(
        graph,
        has_all_edges=True,
        tables=_tables(file, graph),
        exception_tables=_exception_tables(made, graph),
        format="macho",
    )


def _exception_tables(file: TranslatedFile, graph: LinkGraph) -> I64:
    """The graph's rows for exception tables. `__compact_unwind` has records of 32 bytes, the function at their start,
    its table at 24 (<mach-o/compact_unwind_encoding.h>). What has its table in `__eh_frame` is not looked for: a
    table without a function counts as that of all functions without one."""
    is_table = graph.sections.name.equal(b"__TEXT,__gcc_except_tab")[graph.blocks.section]
    if not is_table.any():
        return graph.exception_tables
    found = described(file, graph, file.sections.name.equal(_COMPACT_UNWIND), 32, 0, 24)
    found = found[is_table[found[:, 1]]]
    alone = np.setdiff1d(np.flatnonzero(is_table), found[:, 1])
    plain = np.setdiff1d(np.flatnonzero(graph.blocks.kind == BlockKind.CODE), found[:, 0])
    pairs = np.stack([np.repeat(plain, len(alone)), np.tile(alone, len(plain))], axis=1)
    return np.concatenate([found, pairs])


def _tables(file: MachoFile, graph: LinkGraph) -> I64:
    """The graph's rows for the data in code."""
    place, size = file.data_in_code[:, 0], file.data_in_code[:, 1]
    rows, found = file.sections, [NO_TABLES]
    for section in np.flatnonzero(rows.flags & macho.S_ATTR_CODE).tolist():
        start = int(rows.address[section])
        here = (place >= start) & (place + size <= start + int(rows.size[section]))
        at = int(rows.offset[section]) + place[here] - start
        block = block_at(graph, at)
        within = at - graph.sections.content.start[graph.blocks.section[block]] - graph.blocks.offset[block]
        found.append(np.stack([block, within, within + size[here]], axis=1)[block >= 0])
    return np.concatenate(found)


def placement_of(sections: MachoSections) -> U8:
    """The `BlockKind` of each section, or NOT_PLACED; for row 0, too."""
    kinds = [NOT_PLACED]
    for name, kind, flags in zip(sections.name, sections.kind.tolist(), sections.flags.tolist(), strict=True):
        segment = name.partition(",")[0]
        if name in _SIDE or flags & macho.S_ATTR_DEBUG or segment in ("__DWARF", "__LLVM", "__LD"):
            kinds.append(NOT_PLACED)
        elif flags & macho.S_ATTR_CODE:
            kinds.append(BlockKind.CODE)
        elif kind in _KINDS:
            kinds.append(_KINDS[kind])
        elif segment == "__TEXT" or kind in _ENTRY_SIZES:
            kinds.append(BlockKind.RODATA)
        else:
            constant = segment == "__DATA_CONST" or name == "__DATA,__const"
            kinds.append(BlockKind.RELRO if constant else BlockKind.DATA)
    return np.array(kinds, dtype=np.uint8)


def _sections(file: MachoFile) -> ElfSections:
    rows = file.sections
    zeroed = np.isin(rows.kind, macho.ZEROED)
    flags = np.full(len(rows), elf.SHF_ALLOC, dtype=np.int64)
    flags[np.array([name.startswith("__DWARF") for name in rows.name], dtype=np.bool_)] = 0
    flags[np.isin(rows.kind, list(_ENTRY_SIZES))] |= elf.SHF_MERGE
    flags[rows.kind == _STRING] |= elf.SHF_STRINGS
    entry = np.array([_ENTRY_SIZES.get(kind, 0) for kind in rows.kind.tolist()], dtype=np.int64)
    type_ = np.where(zeroed, elf.SHT_NOBITS, elf.SHT_PROGBITS)
    nothing = np.zeros(1 + len(rows), dtype=np.int64)
    return ElfSections(
        name=Names.of(["", *rows.name]),
        type=np.append(0, type_),
        flags=np.append(0, flags).astype(np.uint64),
        start=np.append(0, np.where(zeroed, 0, rows.offset)),
        size=np.append(0, rows.size),
        link=nothing,
        info=nothing,
        alignment=np.append(1, rows.alignment),
        entry_size=np.append(0, entry),
        group=no_names(file.octets, 1 + len(rows)),
    )


def _symbols(file: MachoFile) -> ElfSymbols:
    """A row for nothing, one for each section, and those of the file."""
    rows, sections, before = file.symbols, file.sections, 1 + len(file.sections)
    limit = np.append(0, sections.size)
    offset = rows.value - np.append(0, sections.address)[rows.section]
    common = (rows.kind == macho.N_UNDF) & ~rows.is_stab & rows.is_external & (rows.value != 0)
    home = np.where(common, -elf.SHN_COMMON, np.where(rows.kind == macho.N_ABS, -elf.SHN_ABS, rows.section))
    atoms = _begin_atoms(file)
    size = sizes_to_next(rows.section, offset, atoms, limit)
    # Of a tentative definition the value is its size, and the alignment stands in the description.
    size = np.where(common, rows.value, size)
    value = np.where(common, np.int64(1) << (rows.desc >> 8 & 15), np.where(home == 0, 0, offset))
    weak = np.where(rows.section > 0, rows.desc & macho.N_WEAK_DEF, rows.desc & macho.N_WEAK_REF) != 0
    binding = np.where(rows.is_external, np.where(weak, Binding.WEAK, Binding.GLOBAL), Binding.LOCAL)
    nothing, number = np.zeros(before, dtype=np.int64), np.arange(before)
    return ElfSymbols(
        name=Names(no_names(file.octets, before).rows.followed_by(rows.name.rows)),
        type=np.append(np.where(number > 0, elf.STT_SECTION, 0), _types(file, atoms)).astype(np.uint8),
        binding=np.append(nothing, binding).astype(np.uint8),
        visibility=np.append(nothing, np.where(rows.is_hidden, Visibility.HIDDEN, Visibility.DEFAULT)).astype(np.uint8),
        section=np.append(number, home),
        value=np.append(nothing, value),
        size=np.append(nothing, size),
    )


def _types(file: MachoFile, atoms: Flags) -> I64:
    rows, placement = file.symbols, placement_of(file.sections)
    kind = placement[rows.section]
    is_code, is_tls = kind == BlockKind.CODE, is_one_of(kind, (BlockKind.TLS_DATA, BlockKind.TLS_BSS))
    types = np.where(is_tls, SymbolType.TLS, np.where(kind == NOT_PLACED, SymbolType.NONE, SymbolType.OBJECT))
    return np.where(is_code, np.where(atoms, SymbolType.FUNCTION, SymbolType.NONE), types)


def _begin_atoms(file: MachoFile) -> Flags:
    """For each symbol whether it begins an atom."""
    rows: MachoSymbols = file.symbols
    if not file.flags & macho.MH_SUBSECTIONS_VIA_SYMBOLS:
        return np.zeros(len(rows), dtype=np.bool_)
    named = (rows.section > 0) & (rows.name.are_given() | rows.holds_together)
    result: Flags = named & (rows.desc & macho.N_ALT_ENTRY == 0)
    return result


def _private_atoms(file: MachoFile, symbols: ElfSymbols, placement: U8) -> tuple[I64, I64]:
    """Keys and sizes of the atoms of private labels; of whole sections where symbols do not cut."""
    rows = np.flatnonzero(np.append(np.zeros(1 + len(file.sections), dtype=np.bool_), file.symbols.holds_together))
    if not file.flags & macho.MH_SUBSECTIONS_VIA_SYMBOLS:
        rows = 1 + np.arange(len(file.sections))
        size = file.sections.size
    else:
        size = symbols.size[rows]
    placed = (placement[symbols.section[rows]] != NOT_PLACED) & (size > 0)
    return key(symbols.section[rows], symbols.value[rows])[placed], size[placed]
