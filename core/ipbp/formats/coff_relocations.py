"""COFF relocations and the edge kinds that they become. Raw numbers end here.

What is added stands in the field, in parts of instructions in the part. Distances count from behind the field, and on
x86-64 the type says how much immediate follows. Source: "PE Format" (Microsoft), "COFF Relocations"; what it leaves
open as link.exe's successors (lld) have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from ipbp.arch.fields import WIDTH, part_of_word
from ipbp.formats.coff_file import CoffFile
from ipbp.formats.elf_file import ElfRelocations, malformed
from ipbp.formats.macho_relocations import low12_kind
from ipbp.formats.translated import refuse_types, rows_of_tables, signed_fields
from ipbp.graph.columns import I64, U8, Flags
from ipbp.graph.edges import EdgeKind
from ipbp.graph.rows import is_one_of, words_at

_RECORD = 10
_LOAD, _SECTION_LOAD, _NOTHING = 200, 201, 202

KINDS: Mapping[str, Mapping[int, int]] = MappingProxyType(
    {
        "x86_64": {
            0: _NOTHING,  # IMAGE_REL_AMD64_ABSOLUTE
            1: EdgeKind.ABS64,  # IMAGE_REL_AMD64_ADDR64
            2: EdgeKind.ABS32,  # IMAGE_REL_AMD64_ADDR32
            3: EdgeKind.IMAGE32,  # IMAGE_REL_AMD64_ADDR32NB
            4: EdgeKind.PCREL32,  # IMAGE_REL_AMD64_REL32
            5: EdgeKind.PCREL32,  # IMAGE_REL_AMD64_REL32_1
            6: EdgeKind.PCREL32,
            7: EdgeKind.PCREL32,
            8: EdgeKind.PCREL32,
            9: EdgeKind.PCREL32,  # IMAGE_REL_AMD64_REL32_5
            10: EdgeKind.SECTION16,  # IMAGE_REL_AMD64_SECTION
            11: EdgeKind.SECREL32,  # IMAGE_REL_AMD64_SECREL
        },
        "aarch64": {
            0: _NOTHING,  # IMAGE_REL_ARM64_ABSOLUTE
            1: EdgeKind.ABS32,  # IMAGE_REL_ARM64_ADDR32
            2: EdgeKind.IMAGE32,  # IMAGE_REL_ARM64_ADDR32NB
            3: EdgeKind.BRANCH26,  # IMAGE_REL_ARM64_BRANCH26
            4: EdgeKind.PAGE21,  # IMAGE_REL_ARM64_PAGEBASE_REL21
            5: EdgeKind.ADDRESS21,  # IMAGE_REL_ARM64_REL21
            6: EdgeKind.LOW12,  # IMAGE_REL_ARM64_PAGEOFFSET_12A
            7: _LOAD,  # IMAGE_REL_ARM64_PAGEOFFSET_12L
            8: EdgeKind.SECREL32,  # IMAGE_REL_ARM64_SECREL
            9: EdgeKind.SECREL_LOW12,  # IMAGE_REL_ARM64_SECREL_LOW12A
            10: EdgeKind.SECREL_HIGH12,  # IMAGE_REL_ARM64_SECREL_HIGH12A
            11: _SECTION_LOAD,  # IMAGE_REL_ARM64_SECREL_LOW12L
            13: EdgeKind.SECTION16,  # IMAGE_REL_ARM64_SECTION
            14: EdgeKind.ABS64,  # IMAGE_REL_ARM64_ADDR64
            15: EdgeKind.BRANCH19,  # IMAGE_REL_ARM64_BRANCH19
            16: EdgeKind.BRANCH14,  # IMAGE_REL_ARM64_BRANCH14
            17: EdgeKind.PCREL32,  # IMAGE_REL_ARM64_REL32
        },
    }
)
_PREFIX = {"x86_64": "IMAGE_REL_AMD64", "aarch64": "IMAGE_REL_ARM64"}
_NAMES = {
    "x86_64": {12: "SECREL7", 13: "TOKEN", 14: "SREL32", 15: "PAIR", 16: "SSPAN32", 10: "SECTION"},
    "aarch64": {12: "TOKEN", 13: "SECTION"},
}


def read_relocations(file: CoffFile, is_side: Flags, passed_over: Flags) -> ElfRelocations:
    """The relocations of an object; section n has row n, symbol n row n + 1 + sections + 1 (see `coff_object`).

    `is_side`, `passed_over`: by section, whether it describes others, whether nobody reads it.
    Errors: `object-malformed`; Refused: `relocation-unsupported`.
    """
    sections, machine = file.sections, file.machine
    at, holder = rows_of_tables(sections.relocations_at, sections.relocations, _RECORD, np.arange(len(sections)))
    at, holder = at[~passed_over[holder]], holder[~passed_over[holder]]
    words = words_at(file.octets, at)
    place = (words & np.uint64(0xFFFFFFFF)).astype(np.int64)
    symbol = (words >> np.uint64(32)).astype(np.int64)
    type_ = (words_at(file.octets, at + 8) & np.uint64(0xFFFF)).astype(np.int64)
    kind = _column(machine)[np.minimum(type_, 31)]
    _refuse_unknown(file, holder, type_, (kind == 0) | ((kind == EdgeKind.SECTION16) & ~is_side[holder]))
    some = kind != _NOTHING
    place, symbol, type_, kind, holder = (column[some] for column in (place, symbol, type_, kind, holder))
    if ((symbol >= len(file.symbols)) | ~file.symbols.is_record[np.minimum(symbol, len(file.symbols) - 1)]).any():
        malformed(file.path, "a relocation names a symbol that is not there")
    if (place + 2 > sections.size[holder]).any():
        malformed(file.path, "a relocation lies outside its section")
    field = sections.offset[holder] + place
    kind = _accesses(file, field, kind)
    if (place + WIDTH[kind] > sections.size[holder]).any():
        malformed(file.path, "a relocation lies outside its section")
    addend = _addends(file, field, kind)
    if machine == "x86_64":
        addend -= np.where(kind == EdgeKind.PCREL32, type_, 0)  # 4 for REL32, and the immediate for its variants
    else:
        addend -= np.where(kind == EdgeKind.PCREL32, 4, 0)
    return ElfRelocations(holder + 1, place, kind.astype(np.uint32), symbol + len(sections) + 1, addend)


def _column(machine: str) -> U8:
    column = np.zeros(32, dtype=np.uint8)
    for number, kind in KINDS[machine].items():
        column[number] = kind
    return column


def _refuse_unknown(file: CoffFile, holder: I64, type_: I64, unknown: Flags) -> None:
    rows = np.flatnonzero(unknown)
    _, first = np.unique(type_[rows], return_index=True)
    found = []
    for row in rows[first].tolist():
        number = int(type_[row])
        name = _NAMES[file.machine].get(number)
        shown = f"{_PREFIX[file.machine]}_{name}" if name else f"{_PREFIX[file.machine]} number {number}"
        found.append((file.sections.name[int(holder[row])], shown))
    refuse_types(file.path, found)


def _accesses(file: CoffFile, field: I64, kind: U8) -> U8:
    """Loads and stores by the size that they take."""
    result = kind.copy()
    for mark, base in ((_LOAD, 0), (_SECTION_LOAD, EdgeKind.SECREL_LOW12 - EdgeKind.LOW12)):
        rows = np.flatnonzero(kind == mark)
        word = (words_at(file.octets, field[rows]) & np.uint64(0xFFFFFFFF)).astype(np.int64)
        result[rows] = low12_kind(word) + np.uint8(base)
    return result


def _addends(file: CoffFile, field: I64, kind: U8) -> I64:
    width = WIDTH[kind].astype(np.int64)
    addend = signed_fields(file.octets, field, width)
    if file.machine == "aarch64":
        whole = (EdgeKind.ABS64, EdgeKind.ABS32, EdgeKind.IMAGE32, EdgeKind.PCREL32, EdgeKind.SECREL32)
        parts = np.flatnonzero(~is_one_of(kind, (*whole, EdgeKind.SECTION16)))
        word = (words_at(file.octets, field[parts]) & np.uint64(0xFFFFFFFF)).astype(np.int64)
        number = part_of_word(kind[parts], word)
        # What is added to an address stands in `adrp` as it is, not as a number of pages.
        addend[parts] = np.where(kind[parts] == EdgeKind.PAGE21, number >> 12, number)
    return addend
