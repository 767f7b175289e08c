"""A relocatable COFF file of clang or rustc as a `LinkGraph`.

A COFF linker moves whole sections; compilers give each function its own, and several files may bring the same one of
which the linker keeps one (COMDAT). Symbols have no size and reach to the next one; where a function ends its row of
`.pdata` says, and where a section does, without the fill that GNU's assembler puts behind it, its symbol. A private
label is not in the file: its section stands for it, and what is added says where. A weak external is a name with
another symbol that it stands for when nobody else defines it; here it is a weak definition of what that symbol is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ipbp.arch.machines import machine_of
from ipbp.formats import coff_file as coff
from ipbp.formats import elf_file as elf
from ipbp.formats.coff_file import CoffFile, CoffSections, read_coff
from ipbp.formats.coff_relocations import read_relocations
from ipbp.formats.elf_blocks import NOT_PLACED, SECTION_SHIFT, key
from ipbp.formats.elf_file import ElfRelocations, ElfSections, ElfSymbols, malformed
from ipbp.formats.elf_object import graph_of
from ipbp.formats.translated import described, no_names, sizes_to_next, translated
from ipbp.graph.columns import I64, U8, Flags
from ipbp.graph.model import Binding, BlockKind, LinkGraph, SymbolType, Visibility
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows, is_one_of, words_at

FORMAT = "coff"
_LEAST_ALIGNMENT = 16  # GNU's assembler (gas, "config/obj-coff.c")
WEAK_DEFAULT = b".weak."
"""How LLVM's names of what weak externals stand for begin."""
_FUNCTION_TABLE = b".pdata"
_DESCRIBING = (_FUNCTION_TABLE, b".debug")
_PASSED_OVER = (b".drectve", b".llvm", b".gfids", b".giats", b".gljmp", b".gehcont", b".voltbl")


def read_object(content: Any, path: str) -> LinkGraph:
    """The link graph of a COFF object for x86-64 or AArch64; `content` as for `elf_object.read_object`.

    Raises IpbpError: `object-malformed`, `object-wrong-architecture`, `object-undecodable`; and Refused with one
    `relocation-unsupported` for each type of relocation that has no edge kind.
    """
    file = read_coff(content, path)
    coff.check_with_lief(file)
    placement = _placement(file.sections)
    passed_over = _passed_over(file.sections)
    zeroed = file.sections.flags & coff.CNT_UNINITIALIZED != 0
    if (zeroed & (file.sections.relocations > 0)).any():
        malformed(path, "a relocation is in a section without bytes")
    relocations = read_relocations(file, (placement == NOT_PLACED)[1:], passed_over)
    lengths = _lengths(file)
    ends = _function_ends(file, relocations)
    columns = _sections(file, passed_over, lengths), _symbols(file, placement, lengths, ends)
    tables = (*columns, relocations)
    nothing = np.empty(0, dtype=np.int64)
    made = translated(
        path, file.content, file.octets, file.machine, tables, _source(file), (nothing, nothing), ends_at_labels=True
    )
    graph = graph_of(made, placement)
    # x86-64: start, end and description of a function; AArch64: start and description, if it is not in the record.
    size, place = (12, 8) if file.machine == "x86_64" else (8, 4)
    pairs = described(made, graph, made.sections.name.start_with(_FUNCTION_TABLE), size, 0, place)
    return replace(graph, exception_tables=pairs, format=FORMAT, least_alignment=_LEAST_ALIGNMENT)


def _placement(sections: CoffSections) -> U8:
    """The `BlockKind` of each section, or NOT_PLACED; for row 0, too."""
    flags, name = sections.flags, sections.name
    describes = _passed_over(sections) | (flags & coff.MEM_DISCARDABLE != 0)
    for start in _DESCRIBING:
        describes |= name.start_with(start)
    zeroed, writable = flags & coff.CNT_UNINITIALIZED != 0, flags & coff.MEM_WRITE != 0
    kinds = np.select(
        [
            describes,
            flags & (coff.CNT_CODE | coff.MEM_EXECUTE) != 0,
            name.start_with(b".tls") & zeroed,
            name.start_with(b".tls"),
            name.start_with(b".CRT$") | name.start_with(b".ctors") | name.start_with(b".dtors"),
            zeroed,
            writable,
        ],
        [
            NOT_PLACED,
            BlockKind.CODE,
            BlockKind.TLS_BSS,
            BlockKind.TLS_DATA,
            BlockKind.INIT,
            BlockKind.BSS,
            BlockKind.DATA,
        ],
        BlockKind.RODATA,
    )
    return np.append(NOT_PLACED, kinds).astype(np.uint8)


def _passed_over(sections: CoffSections) -> Flags:
    """For each section whether it only tells the linker something."""
    result: Flags = sections.flags & (coff.LNK_INFO | coff.LNK_REMOVE) != 0
    for start in _PASSED_OVER:
        result |= sections.name.start_with(start)
    return result


def _lengths(file: CoffFile) -> I64:
    """The size of each section without fill: what its symbol says ("PE Format", "Section Definitions"), where nothing
    but fill follows that."""
    rows, symbols = file.sections, file.symbols
    result: I64 = rows.size.copy()
    own = _section_symbols(file)
    said = (words_at(file.octets, symbols.at[own + 1]) & np.uint64(0xFFFFFFFF)).astype(np.int64) if len(own) else own
    is_fill = machine_of(file.machine).is_padding
    for section, length in zip((symbols.section[own] - 1).tolist(), said.tolist(), strict=True):
        start, size = int(rows.offset[section]), int(rows.size[section])
        content = bytes(file.content[start + length : start + size]) if 0 < length < size else b""
        zeroed = rows.flags[section] & coff.CNT_UNINITIALIZED != 0
        code = rows.flags[section] & (coff.CNT_CODE | coff.MEM_EXECUTE) != 0
        if 0 < length < size and (zeroed or (is_fill(content) if code else not any(content))):
            result[section] = length
    return result


def _function_ends(file: CoffFile, relocations: ElfRelocations) -> tuple[I64, I64]:
    """Keys of the starts of functions that have a row in `.pdata`, ascending, and of their ends."""
    nothing = np.empty(0, dtype=np.int64)
    if file.machine != "x86_64":
        return nothing, nothing
    holders = np.flatnonzero(file.sections.name.start_with(_FUNCTION_TABLE)) + 1
    rows = np.flatnonzero(is_one_of(relocations.section, holders))
    symbol = relocations.symbol[rows] - len(file.sections) - 1
    place = key(file.symbols.section[symbol], file.symbols.value[symbol] + relocations.addend[rows])
    field, record = relocations.offset[rows] % 12, key(relocations.section[rows], relocations.offset[rows] // 12)
    one, other = np.flatnonzero(field == 0), np.flatnonzero(field == 4)
    _, first, second = np.intersect1d(record[one], record[other], return_indices=True)
    start, end = place[one[first]], place[other[second]]
    order = np.argsort(start, kind="stable")
    is_whole = (start > 0) & (end > start) & (start >> SECTION_SHIFT == end >> SECTION_SHIFT)
    chosen = order[is_whole[order]]
    return start[chosen], end[chosen]


def _sections(file: CoffFile, passed_over: Flags, lengths: I64) -> ElfSections:
    rows, count = file.sections, 1 + len(file.sections)
    zeroed = rows.flags & coff.CNT_UNINITIALIZED != 0
    flags = np.where(rows.flags & coff.MEM_DISCARDABLE != 0, 0, elf.SHF_ALLOC)
    flags = np.where(passed_over, elf.SHF_EXCLUDE, flags)
    # 0: no alignment is given, which means 16 ("Section Flags").
    power = np.where(rows.flags >> 20 & 15 == 0, 5, rows.flags >> 20 & 15) - 1
    if (power > 13).any():
        malformed(file.path, "a section has an alignment that there is not")
    nothing = np.zeros(count, dtype=np.int64)
    return ElfSections(
        name=Names(no_names(file.octets, 1).rows.followed_by(rows.name.rows)),
        type=np.append(0, np.where(zeroed, elf.SHT_NOBITS, elf.SHT_PROGBITS)),
        flags=np.append(0, flags).astype(np.uint64),
        start=np.append(0, np.where(zeroed, 0, rows.offset)),
        size=np.append(0, lengths),
        link=nothing,
        info=nothing,
        alignment=np.append(1, np.int64(1) << power),
        entry_size=nothing,
        group=_groups(file),
    )


def _leaders(file: CoffFile) -> tuple[I64, I64]:
    """For each section, counted from 1: the symbol that a COMDAT section goes by, or -1; and how the linker chooses (0:
    it is no such section). The section's own symbol comes first and says how, the leader is the next one in it."""
    symbols, count = file.symbols, 1 + len(file.sections)
    leader, selection = np.full(count, -1, dtype=np.int64), np.zeros(count, dtype=np.int64)
    own = _section_symbols(file)
    said = words_at(file.octets, symbols.at[own + 1] + 8 if len(own) else own)
    selection[symbols.section[own]] = (said >> np.uint64(48)).astype(np.int64) & 0xFF
    is_comdat = np.append(False, file.sections.flags & coff.LNK_COMDAT != 0)
    selection[~is_comdat] = 0
    rows = np.flatnonzero(symbols.is_record & (symbols.section > 0))
    is_own = np.zeros(len(symbols), dtype=np.bool_)
    is_own[own] = True
    others = rows[~is_own[rows]][::-1]
    leader[symbols.section[others]] = others  # the first one is written last
    leader[selection == 0] = -1
    return leader, selection


def _section_symbols(file: CoffFile) -> I64:
    """Rows of the symbols that stand for sections: static, at their start, with a record behind them."""
    symbols = file.symbols
    own = symbols.is_record & (symbols.storage == coff.STATIC) & (symbols.section > 0)
    own &= (symbols.value == 0) & (symbols.extra > 0) & (symbols.type & 0xF0 == 0)
    return np.flatnonzero(own)


def _groups(file: CoffFile) -> Names:
    """For each section the name of its leader where the linker keeps one of several, "" else."""
    leader, selection = _leaders(file)
    some = (leader >= 0) & (selection > coff.NODUPLICATES) & (selection != coff.ASSOCIATIVE)
    rows = file.symbols.name.rows
    chosen = np.where(some, leader, 0)
    if len(rows) == 0:
        return no_names(file.octets, len(leader))
    return Names(ByteRows(rows.octets, np.where(some, rows.start[chosen], 0), np.where(some, rows.length[chosen], 0)))


def _symbols(file: CoffFile, placement: U8, lengths: I64, ends: tuple[I64, I64]) -> ElfSymbols:
    """A row for nothing, one for each section, and the records of the file; what is no symbol has no name."""
    rows, before = file.symbols, 1 + len(file.sections)
    limit = np.append(0, lengths)
    section, value, storage = rows.section.copy(), rows.value.copy(), rows.storage
    weak = np.flatnonzero(rows.is_record & (storage == coff.WEAK_EXTERNAL) & (section == coff.UNDEFINED))
    if (rows.extra[weak] == 0).any():
        malformed(file.path, "a weak symbol does not say what it stands for")
    stands_for = (words_at(file.octets, rows.at[weak] + rows_size(file)) & np.uint64(0xFFFFFFFF)).astype(np.int64)
    if (stands_for >= len(rows)).any() or not rows.is_record[stands_for].all():
        malformed(file.path, "a weak symbol stands for one that is not there")
    defined = rows.section[stands_for] > 0
    section[weak[defined]], value[weak[defined]] = rows.section[stands_for][defined], rows.value[stands_for][defined]
    is_function = rows.type & 0xF0 == coff.FUNCTION_TYPE
    is_function[weak] |= is_function[stands_for]
    section[~rows.is_record] = coff.UNDEFINED
    placed = section > 0
    value_limit = limit[np.where(placed, section, 0)]
    if (placed & (value > value_limit)).any():
        malformed(file.path, "a symbol lies outside its section")
    own = np.zeros(len(rows), dtype=np.bool_)
    own[_section_symbols(file)] = True
    hidden = own | ~rows.is_record | (storage == coff.FILE) | (section == coff.DEBUG)
    hidden |= rows.name.start_with(WEAK_DEFAULT) | (rows.name.start_with(b"@") & (section == coff.ABSOLUTE))
    outside = (section == coff.UNDEFINED) & ~hidden
    common = outside & (storage == coff.EXTERNAL) & (value != 0)
    kind = placement[np.where(placed, section, 0)]
    starts = placed & ~hidden & (storage != coff.LABEL)
    size = sizes_to_next(np.maximum(section, 0), value, starts, limit)
    size = np.where(common, value, np.minimum(size, _sizes_by_rows(key(np.maximum(section, 0), value), ends)))
    home = np.where(common, -elf.SHN_COMMON, np.where(section == coff.ABSOLUTE, -elf.SHN_ABS, np.maximum(section, 0)))
    # A tentative definition says no alignment: as large as it is, up to 32 (lld, as link.exe).
    power = np.minimum(np.int64(1) << np.ceil(np.log2(np.maximum(value, 1))).astype(np.int64), 32)
    value = np.where(common, power, np.where(outside, 0, value))
    leader, selection = _leaders(file)
    one_of_several = (selection > coff.NODUPLICATES) & (selection != coff.ASSOCIATIVE)
    is_weak = np.zeros(len(rows), dtype=np.bool_)
    is_weak[leader[one_of_several & (leader >= 0)]] = True
    is_weak |= storage == coff.WEAK_EXTERNAL
    is_global = is_one_of(storage, (coff.EXTERNAL, coff.WEAK_EXTERNAL))
    binding = np.where(is_global, np.where(is_weak, Binding.WEAK, Binding.GLOBAL), Binding.LOCAL)
    nothing, number = np.zeros(before, dtype=np.int64), np.arange(before)
    names = ByteRows(rows.name.rows.octets, rows.name.rows.start, np.where(hidden, 0, rows.name.rows.length))
    types = np.where(own, elf.STT_SECTION, _types(kind, is_function & starts, placed))
    return ElfSymbols(
        name=Names(no_names(file.octets, before).rows.followed_by(names)),
        type=np.append(np.where(number > 0, elf.STT_SECTION, 0), types).astype(np.uint8),
        binding=np.append(nothing, binding).astype(np.uint8),
        visibility=np.full(before + len(rows), Visibility.DEFAULT, dtype=np.uint8),
        section=np.append(number, home),
        value=np.append(nothing, value),
        size=np.append(nothing, size),
    )


def _sizes_by_rows(start: I64, ends: tuple[I64, I64]) -> I64:
    """How far it is from each place to the end of the function that begins there; very far where none is known."""
    result = np.full(len(start), np.iinfo(np.int64).max, dtype=np.int64)
    if len(ends[0]):
        row = np.minimum(np.searchsorted(ends[0], start), len(ends[0]) - 1)
        known = ends[0][row] == start
        result[known] = ends[1][row[known]] - start[known]
    return result


def _types(kind: U8, is_function: Flags, placed: Flags) -> I64:
    is_code, is_tls = kind == BlockKind.CODE, is_one_of(kind, (BlockKind.TLS_DATA, BlockKind.TLS_BSS))
    types = np.where(is_tls, SymbolType.TLS, SymbolType.OBJECT)
    types = np.where(is_code, np.where(is_function, SymbolType.FUNCTION, SymbolType.NONE), types)
    return np.where(placed & (kind != NOT_PLACED), types, SymbolType.NONE)


def rows_size(file: CoffFile) -> int:
    """Bytes of a symbol's record."""
    return int(file.symbols.at[1] - file.symbols.at[0]) if len(file.symbols) > 1 else 18


def _source(file: CoffFile) -> str:
    """Base name of the source: what stands behind the symbol `.file`."""
    symbols = file.symbols
    rows = np.flatnonzero(symbols.is_record & (symbols.storage == coff.FILE))
    if len(rows) == 0 or symbols.extra[rows[0]] == 0:
        return ""
    row, size = int(rows[0]), rows_size(file)
    start = int(symbols.at[row]) + size
    text = bytes(file.content[start : start + size * int(symbols.extra[row])]).split(b"\0")[0]
    return text.decode("utf-8", "surrogateescape").replace("\\", "/").rsplit("/", 1)[-1]
