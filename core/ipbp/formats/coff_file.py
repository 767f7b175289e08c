"""The tables of a COFF object as columns, checked.

Two headers are in use, the plain one and that of objects with more sections (`/bigobj`), which also widens a symbol by
two bytes. A symbol may have auxiliary records behind it, which take rows of the same table. Source: "PE Format"
(Microsoft), and <llvm/BinaryFormat/COFF.h> for the wide header. lief judges the header and the section table, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ipbp.errors import IpbpError
from ipbp.formats.elf_file import malformed
from ipbp.formats.translated import check_inside
from ipbp.graph.columns import I64, U8, Flags
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows, words_at

MACHINES = {0x8664: "x86_64", 0xAA64: "aarch64"}
_OTHER_MACHINES = {0x14C: "32-bit x86", 0x1C4: "32-bit ARM", 0xA641: "ARM64EC", 0xA64E: "ARM64X"}
_BIG_ID = bytes.fromhex("c7a1bad1eebaa94baf20faf66aa4dcb8")
CNT_CODE, CNT_UNINITIALIZED, LNK_INFO, LNK_REMOVE = 0x20, 0x80, 0x200, 0x800
LNK_COMDAT, LNK_NRELOC_OVFL, MEM_DISCARDABLE = 0x1000, 0x01000000, 0x02000000
MEM_EXECUTE, MEM_WRITE = 0x20000000, 0x80000000
UNDEFINED, ABSOLUTE, DEBUG = 0, -1, -2
EXTERNAL, STATIC, LABEL, FILE, WEAK_EXTERNAL = 2, 3, 6, 103, 105
FUNCTION_TYPE = 0x20
NODUPLICATES, ASSOCIATIVE = 1, 5
_RELOCATION = 10
_SLASH = 0x2F

_SECTION = np.dtype(
    [
        ("name", "S8"),
        ("virtual_size", "<u4"),
        ("address", "<u4"),
        ("size", "<u4"),
        ("offset", "<u4"),
        ("relocations_at", "<u4"),
        ("lines_at", "<u4"),
        ("relocations", "<u2"),
        ("lines", "<u2"),
        ("flags", "<u4"),
    ]
)


@dataclass(frozen=True, slots=True)
class CoffSections:
    """One row a section, in the file's order (numbers in symbols count from 1)."""

    name: Names
    address: I64
    virtual_size: I64
    size: I64
    offset: I64
    relocations_at: I64
    relocations: I64
    flags: I64

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True, slots=True)
class CoffSymbols:
    """One row a record. `is_record`: it is a symbol, and not what stands behind one; `extra`: how many records do.
    `at`: its place in the file."""

    name: Names
    value: I64
    section: I64
    type: I64
    storage: I64
    extra: I64
    is_record: Flags
    at: I64

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True, slots=True)
class CoffFile:
    path: str
    content: memoryview
    octets: U8
    machine: str
    sections: CoffSections
    symbols: CoffSymbols


def is_coff(start: bytes) -> bool:
    """Whether a file that starts so is an object of COFF, of whatever machine."""
    machine = int.from_bytes(start[:2], "little")
    if machine in MACHINES or machine in _OTHER_MACHINES:
        return True
    return start[:4] == b"\0\0\xff\xff" and start[12:28] == _BIG_ID


def read_coff(content: Any, path: str) -> CoffFile:
    """The checked tables of an object. Errors: `object-malformed`, `object-wrong-architecture`."""
    view = memoryview(content)
    octets = np.frombuffer(view, np.uint8)
    is_big = bytes(view[:4]) == b"\0\0\xff\xff"
    header = 56 if is_big else 20
    if len(view) < header:
        malformed(path, "the header is not whole")
    machine = _number(view, 6 if is_big else 0, 2)
    if machine not in MACHINES:
        _wrong_architecture(path, machine)
    if is_big:
        count, symbols_at, symbols = (_number(view, at, 4) for at in (44, 48, 52))
    else:
        count, symbols_at, symbols = _number(view, 2, 2), _number(view, 8, 4), _number(view, 12, 4)
        header += _number(view, 16, 2)  # an optional header, which objects do not have
    size = 20 if is_big else 18
    if header + count * _SECTION.itemsize > len(view):
        malformed(path, f"{count} section headers do not fit in the file")
    if symbols and symbols_at + symbols * size > len(view):
        malformed(path, "the symbol table is not inside the file")
    text_at = symbols_at + symbols * size if symbols else len(view)
    sections = read_sections(view, octets, header, count, text_at, path)
    table = read_symbols(view, octets, symbols_at, symbols, size, text_at, path)
    _check_homes(table, count, path)
    return CoffFile(path, view, octets, MACHINES[machine], sections, table)


def check_with_lief(file: CoffFile) -> None:
    """Refuse what lief cannot read, or reads with another number of sections. It is shown the headers alone."""
    import lief  # only here, as in `elf_file`

    shown = min(len(file.sections), 1024)
    is_big = bytes(file.content[:4]) == b"\0\0\xff\xff"
    header = 56 if is_big else 20
    picture = bytearray(file.content[: header + shown * _SECTION.itemsize])
    if is_big:
        picture[44:48], picture[48:56] = shown.to_bytes(4, "little"), bytes(8)
    else:
        picture[2:4], picture[8:16] = shown.to_bytes(2, "little"), bytes(8)
        picture[16:18] = bytes(2)
    for at in range(header, len(picture), _SECTION.itemsize):
        picture[at : at + 1] = b"." if picture[at] == _SLASH else picture[at : at + 1]
        picture[at + 16 : at + 36] = bytes(20)
    lief.logging.disable()
    found = lief.COFF.parse(bytes(picture))
    if found is None or isinstance(found, lief.lief_errors):
        malformed(file.path, "lief cannot read this file")
    if len(found.sections) != shown:
        malformed(file.path, "the section table can be read in two ways")


def read_sections(view: memoryview, octets: U8, at: int, count: int, text_at: int, path: str) -> CoffSections:
    """The section table at a place in the file; names longer than eight bytes are in the string table at `text_at`."""
    raw = np.frombuffer(view, _SECTION, count, at) if count else np.empty(0, _SECTION)
    flags = raw["flags"].astype(np.int64)
    relocations_at, relocations = raw["relocations_at"].astype(np.int64), raw["relocations"].astype(np.int64)
    # More than 65,535 relocations: the first one holds their number, itself included.
    many = np.flatnonzero((relocations == 0xFFFF) & (flags & LNK_NRELOC_OVFL != 0))
    check_inside(path, relocations_at[many], np.full(len(many), _RELOCATION), len(view))
    counted = (words_at(octets, relocations_at[many]) & np.uint64(0xFFFFFFFF)).astype(np.int64)
    if (counted == 0).any():
        malformed(path, "the number of a section's relocations is not there")
    relocations[many], relocations_at[many] = counted - 1, relocations_at[many] + _RELOCATION
    result = CoffSections(
        name=_section_names(octets, at, count, text_at, path),
        address=raw["address"].astype(np.int64),
        virtual_size=raw["virtual_size"].astype(np.int64),
        size=raw["size"].astype(np.int64),
        offset=raw["offset"].astype(np.int64),
        relocations_at=relocations_at,
        relocations=relocations,
        flags=flags,
    )
    with_bytes = (flags & CNT_UNINITIALIZED == 0) & (result.size > 0)
    check_inside(path, result.offset[with_bytes], result.size[with_bytes], len(view))
    some = relocations > 0
    check_inside(path, relocations_at[some], relocations[some] * _RELOCATION, len(view))
    return result


def read_symbols(view: memoryview, octets: U8, at: int, count: int, size: int, text_at: int, path: str) -> CoffSymbols:
    """The symbol table of `count` records of `size` bytes."""
    places = at + size * np.arange(count)
    first, second = words_at(octets, places), words_at(octets, places + 8)
    wide = size == 20
    section = (second >> np.uint64(32)).astype(np.int64)
    section = (section ^ 1 << 31) - (1 << 31) if wide else ((section & 0xFFFF) ^ 1 << 15) - (1 << 15)
    rest = words_at(octets, places + (16 if wide else 14)).astype(np.int64)
    extra = np.where(np.arange(count) < count, rest >> 24 & 0xFF, 0)
    is_record = _records(extra, count)
    if count and int((np.arange(count) + extra)[is_record].max()) >= count:
        malformed(path, "the symbol table ends within a symbol")
    return CoffSymbols(
        name=_symbol_names(octets, places, first, is_record, text_at, path),
        value=(second & np.uint64(0xFFFFFFFF)).astype(np.int64),
        section=section,
        type=rest & 0xFFFF,
        storage=rest >> 16 & 0xFF,
        extra=extra,
        is_record=is_record,
        at=places,
    )


def _records(extra: I64, count: int) -> Flags:
    """Which rows are symbols: row 0, and each that follows the records of one. Found by doubling steps."""
    reached = np.zeros(count + 1, dtype=np.bool_)
    reached[0] = True
    following = np.minimum(np.append(np.arange(count) + 1 + extra, count), count)
    for _ in range(max(count, 1).bit_length()):
        reached[following[np.flatnonzero(reached)]] = True
        following = following[following]
    return reached[:count]


def _check_homes(symbols: CoffSymbols, sections: int, path: str) -> None:
    home = symbols.section[symbols.is_record]
    if ((home > sections) | (home < DEBUG)).any():
        malformed(path, "a symbol is in a section that is not there")


def _short_names(octets: U8, at: I64) -> ByteRows:
    """Names of up to eight bytes, filled with NUL."""
    if len(at) == 0:
        return ByteRows(octets, at, at)
    letters = octets[at[:, None] + np.arange(8)]
    length = np.where((letters == 0).any(axis=1), (letters == 0).argmax(axis=1), 8)
    return ByteRows(octets, at, length.astype(np.int64))


def _section_names(octets: U8, at: int, count: int, text_at: int, path: str) -> Names:
    short = _short_names(octets, at + _SECTION.itemsize * np.arange(count))
    start, length = short.start.copy(), short.length.copy()
    long = np.flatnonzero((length > 0) & (octets[np.minimum(start, len(octets) - 1)] == _SLASH))
    offsets = np.array([_long_name(short.of(row), path) for row in long.tolist()], dtype=np.int64)
    start[long], length[long] = _in_text(octets, text_at, offsets, path)
    return Names(ByteRows(octets, start, length))


def _long_name(name: bytes, path: str) -> int:
    """Where in the string table a section's name is: `/123`, or `//` and base 64 (as LLVM writes large ones)."""
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    if name[1:].isdigit():
        return int(name[1:])
    if name[1:2] != b"/" or len(name) != 8 or not all(letter in digits for letter in name[2:]):
        malformed(path, "a section's name is not in the string table")
    number = 0
    for letter in name[2:]:
        number = number * 64 + digits.index(letter)
    return number


def _symbol_names(octets: U8, at: I64, first: npt.NDArray[np.uint64], wanted: Flags, text_at: int, path: str) -> Names:
    rows = _short_names(octets, at)
    start, length = rows.start.copy(), rows.length.copy()
    long = np.flatnonzero(((first & np.uint64(0xFFFFFFFF)) == 0) & wanted)
    start[long], length[long] = _in_text(octets, text_at, (first[long] >> np.uint64(32)).astype(np.int64), path)
    length[~wanted] = 0
    return Names(ByteRows(octets, start, length))


def _in_text(octets: U8, text_at: int, offset: I64, path: str) -> tuple[I64, I64]:
    """Start and length of the NUL-terminated strings of the string table, whose first word is its size."""
    if len(offset) == 0:
        return offset, offset
    if text_at + 4 > len(octets):
        malformed(path, "the string table is not there")
    size = int.from_bytes(octets[text_at : text_at + 4].tobytes(), "little")
    table = octets[text_at : text_at + size]
    if len(table) < size or size < 5 or table[-1] != 0:
        malformed(path, "the string table is not inside the file")
    if (offset < 4).any() or (offset >= size).any():
        malformed(path, "a name starts outside its string table")
    ends = np.flatnonzero(table == 0)
    return text_at + offset, ends[np.searchsorted(ends, offset)] - offset


def _number(view: memoryview, at: int, size: int) -> int:
    return int.from_bytes(view[at : at + size], "little")


def _wrong_architecture(path: str, machine: int) -> NoReturn:
    found = _OTHER_MACHINES.get(machine, f"COFF machine number {machine:#x}")
    raise IpbpError(
        "object-wrong-architecture",
        f"{path}: {found}, where an object for x86-64 or AArch64 is needed",
        "Build for one of these.",
    )
