"""Mach-O relocations and the edge kinds that they become. Raw numbers end here.

A relocation has a type, a width, and says whether it counts from its place; whether it names a symbol or a section;
and its addend stands in the field, but for parts of instructions of AArch64, which have one of their own before them
(ADDEND). A difference of two places takes two relocations (SUBTRACTOR, UNSIGNED). Sources: <mach-o/x86_64/reloc.h>,
<mach-o/arm64/reloc.h>; what they leave open as ld64, lld and LLVM's JITLink have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ipbp.formats.elf_blocks import key
from ipbp.formats.elf_file import ElfRelocations, malformed
from ipbp.formats.macho_file import ZEROED, MachoFile
from ipbp.formats.translated import refuse_types, rows_of_tables, signed_fields
from ipbp.graph.columns import I64, U8, Flags
from ipbp.graph.edges import EdgeKind
from ipbp.graph.rows import is_one_of, words_at

_RECORD = 8
_SUBTRACTOR, _ADDEND, _PAGEOFF12 = 200, 201, 202


def _rows(*rows: tuple[int, int, int, int]) -> U8:
    """A column by type, pc-relative and width: `type << 3 | pc-relative << 2 | log2(width)`."""
    table = np.zeros(128, dtype=np.uint8)
    for type_, counts, width, kind in rows:
        table[type_ << 3 | counts << 2 | width] = kind
    return table


KINDS = {
    "x86_64": _rows(
        (0, 0, 3, EdgeKind.ABS64),  # X86_64_RELOC_UNSIGNED
        (0, 0, 2, EdgeKind.ABS32),
        (1, 1, 2, EdgeKind.PCREL32),  # X86_64_RELOC_SIGNED
        (2, 1, 2, EdgeKind.BRANCH32),  # X86_64_RELOC_BRANCH
        (3, 1, 2, EdgeKind.GOT_PCREL32_REX_RELAX),  # X86_64_RELOC_GOT_LOAD, always of `movq`
        (4, 1, 2, EdgeKind.GOT_PCREL32),  # X86_64_RELOC_GOT
        (5, 0, 3, _SUBTRACTOR),
        (5, 0, 2, _SUBTRACTOR),
        (6, 1, 2, EdgeKind.PCREL32),  # X86_64_RELOC_SIGNED_1
        (7, 1, 2, EdgeKind.PCREL32),  # X86_64_RELOC_SIGNED_2
        (8, 1, 2, EdgeKind.PCREL32),  # X86_64_RELOC_SIGNED_4
        # What is loaded is the address of the variable's descriptor, from a cell like any other.
        (9, 1, 2, EdgeKind.GOT_PCREL32_REX_RELAX),  # X86_64_RELOC_TLV
    ),
    "aarch64": _rows(
        (0, 0, 3, EdgeKind.ABS64),  # ARM64_RELOC_UNSIGNED
        (0, 0, 2, EdgeKind.ABS32),
        (1, 0, 3, _SUBTRACTOR),
        (1, 0, 2, _SUBTRACTOR),
        (2, 1, 2, EdgeKind.BRANCH26),  # ARM64_RELOC_BRANCH26
        (3, 1, 2, EdgeKind.PAGE21),  # ARM64_RELOC_PAGE21
        (4, 0, 2, _PAGEOFF12),
        (5, 1, 2, EdgeKind.GOT_PAGE21),  # ARM64_RELOC_GOT_LOAD_PAGE21
        (6, 0, 2, EdgeKind.GOT_LOW12),  # ARM64_RELOC_GOT_LOAD_PAGEOFF12
        (7, 1, 2, EdgeKind.GOT_PCREL32),  # ARM64_RELOC_POINTER_TO_GOT
        (8, 1, 2, EdgeKind.GOT_PAGE21),  # ARM64_RELOC_TLVP_LOAD_PAGE21
        (9, 0, 2, EdgeKind.GOT_LOW12),  # ARM64_RELOC_TLVP_LOAD_PAGEOFF12
        (10, 0, 2, _ADDEND),
    ),
}
_NAMES = {
    "x86_64": [
        *("UNSIGNED", "SIGNED", "BRANCH", "GOT_LOAD", "GOT", "SUBTRACTOR"),
        *("SIGNED_1", "SIGNED_2", "SIGNED_4", "TLV"),
    ],
    "aarch64": [
        *("UNSIGNED", "SUBTRACTOR", "BRANCH26", "PAGE21", "PAGEOFF12", "GOT_LOAD_PAGE21", "GOT_LOAD_PAGEOFF12"),
        *("POINTER_TO_GOT", "TLVP_LOAD_PAGE21", "TLVP_LOAD_PAGEOFF12", "ADDEND", "AUTHENTICATED_POINTER"),
    ],
}


@dataclass(frozen=True, slots=True)
class _Raw:
    """The records as they stand in the file. `section`: 0-based, that holds the field; `place`: of the field in it."""

    section: I64
    place: I64
    number: I64
    width: I64  # log2
    is_external: Flags
    type: I64
    kind: U8


def read_relocations(file: MachoFile, atoms: I64) -> ElfRelocations:
    """The relocations of an object; sections and symbols by the rows of the tables that `macho_object` makes: section n
    and its symbol have row n, symbol n has the row behind those. `atoms`: sorted keys of where atoms begin.

    Errors: `object-malformed`; Refused: `relocation-unsupported`.
    """
    raw = _read(file)
    _refuse_unknown(file, raw)
    _check(file, raw)
    sections, symbols = file.sections, file.symbols
    by_section = ~raw.is_external
    target = np.where(raw.is_external, 1 + len(sections) + raw.number, raw.number)
    home_address = np.append(0, sections.address)[np.where(by_section & (raw.kind != _ADDEND), raw.number, 0)]
    holder = key(raw.section + 1, raw.place)
    content = signed_fields(file.octets, sections.offset[raw.section] + raw.place, np.int64(1) << raw.width)
    addend = np.where(by_section, content - home_address, content)
    kind = raw.kind.copy()
    if file.machine == "x86_64":
        # Fields that count hold the distance from behind them to a place in a section, but for a symbol what is added
        # to it, with the immediate behind the field taken off.
        counts = ~is_one_of(kind, (EdgeKind.ABS64, EdgeKind.ABS32, _SUBTRACTOR))
        from_field = np.where(by_section, sections.address[raw.section] + raw.place, -(np.int64(1) << raw.width))
        addend += np.where(counts, from_field, 0)
    else:
        addend[~is_one_of(kind, (EdgeKind.ABS64, EdgeKind.ABS32, _SUBTRACTOR))] = 0
        kind = _accesses(file, raw, kind)
    keep = ~is_one_of(raw.kind, (_SUBTRACTOR, _ADDEND))
    # The record behind takes what the one before it says.
    before = np.flatnonzero(raw.kind == _ADDEND)
    signed = (raw.number[before] ^ 1 << 23) - (1 << 23)
    addend[before + 1] += signed
    minus = np.flatnonzero(raw.kind == _SUBTRACTOR)
    base = raw.number[minus]
    in_section = symbols.section[base]
    base_offset = symbols.value[base] - np.append(0, sections.address)[in_section]
    _check_differences(file, raw, atoms, minus, holder, key(in_section, base_offset))
    addend[minus + 1] += raw.place[minus] - base_offset
    kind[minus + 1] = np.where(raw.width[minus] == 3, EdgeKind.PCREL64, EdgeKind.PCREL32)
    rows = np.flatnonzero(keep)
    return ElfRelocations(
        raw.section[rows] + 1, raw.place[rows], kind[rows].astype(np.uint32), target[rows], addend[rows]
    )


def _read(file: MachoFile) -> _Raw:
    sections = file.sections
    at, holder = rows_of_tables(sections.relocations_at, sections.relocations, _RECORD, np.arange(len(sections)))
    words = words_at(file.octets, at)
    place = (words & np.uint64(0xFFFFFFFF)).astype(np.int64)
    word = (words >> np.uint64(32)).astype(np.int64)
    type_, counts, width = word >> 28 & 15, word >> 24 & 1, word >> 25 & 3
    kind = KINDS[file.machine][type_ << 3 | counts << 2 | width]
    return _Raw(holder, place, word & 0xFFFFFF, width, (word >> 27 & 1) != 0, type_, kind)


def _refuse_unknown(file: MachoFile, raw: _Raw) -> None:
    rows = np.flatnonzero((raw.kind == 0) & (raw.place < 1 << 31))
    _, first = np.unique(raw.type[rows], return_index=True)
    refuse_types(file.path, [(file.sections.name[int(raw.section[row])], _name(file, raw, row)) for row in rows[first]])


def _name(file: MachoFile, raw: _Raw, row: int) -> str:
    names, number = _NAMES[file.machine], int(raw.type[row])
    prefix = "X86_64_RELOC" if file.machine == "x86_64" else "ARM64_RELOC"
    return (
        f"{prefix}_{names[number]} of {8 << int(raw.width[row])} bits" if number < len(names) else f"{prefix} {number}"
    )


def _check(file: MachoFile, raw: _Raw) -> None:
    sections, path = file.sections, file.path
    # The highest bit marks the scattered relocations of other machines.
    if (raw.place + (np.int64(1) << raw.width) > sections.size[raw.section]).any():
        malformed(path, "a relocation lies outside its section")
    if len(raw.kind) and np.isin(sections.kind[raw.section], ZEROED).any():
        malformed(path, "a relocation is in a section without bytes")
    named = raw.is_external | (raw.kind == _SUBTRACTOR)
    plain = raw.kind != _ADDEND
    if (plain & named & (raw.number >= len(file.symbols))).any():
        malformed(path, "a relocation names a symbol that is not there")
    if (plain & ~named & ((raw.number == 0) | (raw.number > len(sections)))).any():
        malformed(path, "a relocation names a section that is not there")
    if (plain & named & file.symbols.is_stab[np.where(plain & named, raw.number, 0)]).any():
        malformed(path, "a relocation names a symbol that is none")
    if (plain & ~raw.is_external & _needs_symbol(file.machine, raw.kind)).any():
        malformed(path, "a relocation names a section where only a symbol can be meant")
    first = np.flatnonzero(is_one_of(raw.kind, (_SUBTRACTOR, _ADDEND)))
    following = np.minimum(first + 1, len(raw.kind) - 1)
    paired = (first + 1 < len(raw.kind)) & (raw.section[following] == raw.section[first])
    paired &= (raw.place[following] == raw.place[first]) & (raw.width[following] == raw.width[first])
    minus = raw.kind[first] == _SUBTRACTOR
    right = np.where(minus, raw.type[following] == 0, _takes_addend(raw.kind[following]))
    if not (paired & right).all():
        malformed(path, "a relocation that belongs to the next one stands alone")


def _check_differences(file: MachoFile, raw: _Raw, atoms: I64, minus: I64, holder: I64, base: I64) -> None:
    """A difference can be followed when what is subtracted is kept together with the field: then it is a distance."""
    here = np.searchsorted(atoms, holder[minus], side="right") == np.searchsorted(atoms, base, side="right")
    here &= base >> 40 == holder[minus] >> 40
    found = [
        (file.sections.name[int(raw.section[row])], f"{_name(file, raw, row)}: a distance between two other places")
        for row in minus[~here].tolist()
    ]
    refuse_types(file.path, found)


def _needs_symbol(machine: str, kind: U8) -> Flags:
    if machine == "x86_64":
        return is_one_of(kind, (EdgeKind.GOT_PCREL32, EdgeKind.GOT_PCREL32_REX_RELAX, _SUBTRACTOR))
    return ~is_one_of(kind, (EdgeKind.ABS64, EdgeKind.ABS32))


def _takes_addend(kind: U8) -> Flags:
    return is_one_of(kind, (EdgeKind.BRANCH26, EdgeKind.PAGE21, _PAGEOFF12))


def _accesses(file: MachoFile, raw: _Raw, kind: U8) -> U8:
    """PAGEOFF12 by what the instruction does with it."""
    rows = np.flatnonzero(raw.kind == _PAGEOFF12)
    at = file.sections.offset[raw.section[rows]] + raw.place[rows]
    word = (words_at(file.octets, at) & np.uint64(0xFFFFFFFF)).astype(np.int64)
    kind[rows] = low12_kind(word)
    return kind


def low12_kind(word: I64) -> U8:
    """The edge kind of the twelve low bits of an address in each A64 instruction: `add`, or a load or store with an
    unsigned offset, which counts in the size of what it takes (Arm Architecture Reference Manual, C4.1, "Loads and
    Stores": size in bits 31:30, vector in bit 26, of 128 bits by bit 23)."""
    access = (word & 0x3B000000) == 0x39000000
    size = word >> 30 & 3
    size = np.where(((word & 0x04800000) == 0x04800000) & (size == 0), 4, size)
    return np.where(access, int(EdgeKind.LOW12_OF_8) + size, EdgeKind.LOW12).astype(np.uint8)
