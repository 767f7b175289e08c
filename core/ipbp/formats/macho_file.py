"""The tables of a Mach-O file as columns, checked: what objects and linked images have in common.

Sources: <mach-o/loader.h>, <mach-o/nlist.h> and "OS X ABI Mach-O File Format Reference". lief judges the headers, too;
symbols and relocations are read as columns over the file's bytes, for there may be a hundred thousand of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ipbp.errors import IpbpError
from ipbp.formats.elf_file import malformed, names_in
from ipbp.formats.translated import check_inside
from ipbp.graph.columns import I64, U8, Flags
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows

MAGIC = b"\xcf\xfa\xed\xfe"
FAT_MAGICS = (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf")
MACHINES = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
MH_OBJECT, MH_EXECUTE, MH_DYLIB, MH_BUNDLE = 1, 2, 6, 8
MH_SUBSECTIONS_VIA_SYMBOLS, MH_PIE = 0x2000, 0x200000
LC_SYMTAB, LC_DYSYMTAB, LC_SEGMENT_64, LC_UUID, LC_DATA_IN_CODE = 0x2, 0xB, 0x19, 0x1B, 0x29
S_REGULAR, S_ZEROFILL, S_CSTRING_LITERALS, S_4BYTE_LITERALS, S_8BYTE_LITERALS = 0, 1, 2, 3, 4
S_NON_LAZY_SYMBOL_POINTERS, S_LAZY_SYMBOL_POINTERS, S_SYMBOL_STUBS = 6, 7, 8
S_MOD_INIT_FUNC_POINTERS, S_MOD_TERM_FUNC_POINTERS, S_GB_ZEROFILL, S_16BYTE_LITERALS = 9, 0xA, 0xC, 0xE
S_THREAD_LOCAL_REGULAR, S_THREAD_LOCAL_ZEROFILL, S_THREAD_LOCAL_VARIABLES = 0x11, 0x12, 0x13
S_THREAD_LOCAL_INIT_FUNCTION_POINTERS, S_INIT_FUNC_OFFSETS = 0x15, 0x16
S_ATTR_CODE, S_ATTR_DEBUG = 0x80000400, 0x02000000
ZEROED = (S_ZEROFILL, S_GB_ZEROFILL, S_THREAD_LOCAL_ZEROFILL)
N_STAB, N_PEXT, N_TYPE, N_EXT = 0xE0, 0x10, 0x0E, 0x01
N_UNDF, N_ABS, N_SECT = 0x0, 0x2, 0xE
N_WEAK_REF, N_WEAK_DEF, N_ALT_ENTRY = 0x40, 0x80, 0x200
_VERBATIM = "\1"
"""Stands before a name that no compiler has put an underscore before, as LLVM writes such names."""
_LARGEST_COMMAND_COUNT = 1 << 16

_COMMAND = np.dtype([("cmd", "<u4"), ("size", "<u4")])
_SEGMENT = np.dtype(
    [
        ("cmd", "<u4"),
        ("cmdsize", "<u4"),
        ("name", "S16"),
        ("address", "<u8"),
        ("size", "<u8"),
        ("offset", "<u8"),
        ("file_size", "<u8"),
        ("maxprot", "<u4"),
        ("initprot", "<u4"),
        ("count", "<u4"),
        ("flags", "<u4"),
    ]
)
_SECTION = np.dtype(
    [
        ("name", "S16"),
        ("segment", "S16"),
        ("address", "<u8"),
        ("size", "<u8"),
        ("offset", "<u4"),
        ("align", "<u4"),
        ("reloff", "<u4"),
        ("nreloc", "<u4"),
        ("flags", "<u4"),
        ("reserved1", "<u4"),
        ("reserved2", "<u4"),
        ("reserved3", "<u4"),
    ]
)
_SYMBOL = np.dtype([("name", "<u4"), ("type", "u1"), ("section", "u1"), ("desc", "<u2"), ("value", "<u8")])


@dataclass(frozen=True, slots=True)
class MachoSegment:
    name: str
    address: int
    size: int
    offset: int
    file_size: int
    protection: int


@dataclass(frozen=True, slots=True)
class MachoSections:
    """One row a section, in the file's order. `kind`: S_*; `name`: with the segment's, as otool writes them."""

    name: tuple[str, ...]
    address: I64
    size: I64
    offset: I64
    alignment: I64
    relocations_at: I64
    relocations: I64
    flags: I64
    reserved1: I64
    reserved2: I64

    def __len__(self) -> int:
        return len(self.name)

    @property
    def kind(self) -> I64:
        return self.flags & 0xFF


@dataclass(frozen=True, slots=True)
class MachoSymbols:
    """One row an nlist entry. `name`: without the underscore that compilers put before it. `section`: 1-based, 0 for
    none; `in_place`: it lies in there (`_mh_execute_header` does not). `private`: a label of the assembler's (`L`), or
    one that the linker removes (`l`), which have no name here; `holds_together`: of the latter those that begin an
    atom."""

    name: Names
    kind: I64
    is_stab: Flags
    is_external: Flags
    is_hidden: Flags
    section: I64
    desc: I64
    value: I64
    in_place: Flags
    private: Flags
    holds_together: Flags

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True, slots=True)
class MachoFile:
    path: str
    content: memoryview
    octets: U8
    machine: str
    kind: int
    flags: int
    segments: tuple[MachoSegment, ...]
    sections: MachoSections
    symbols: MachoSymbols
    indirect: I64  # symbol of each pointer cell and stub (LC_DYSYMTAB)
    data_in_code: I64  # rows of address and size (LC_DATA_IN_CODE)
    uuid: str


def read_macho(content: Any, path: str) -> MachoFile:
    """The checked tables of a thin 64-bit little-endian file. Errors: `object-malformed`, `object-wrong-architecture`;
    readers of images tell them as their own."""
    view = memoryview(content)
    if bytes(view[:4]) in FAT_MAGICS:
        _wrong_architecture(path, "a universal file with several architectures")
    if len(view) < 32 or bytes(view[:4]) != MAGIC:
        malformed(path, "not a 64-bit little-endian Mach-O file")
    words = np.frombuffer(view, "<u4", 8)
    cpu, kind, count, size, flags = (int(words[row]) for row in (1, 3, 4, 5, 6))
    if cpu not in MACHINES:
        _wrong_architecture(path, f"Mach-O machine number {cpu:#x}")
    if size > len(view) - 32 or count > min(size // 8, _LARGEST_COMMAND_COUNT):
        malformed(path, "the load commands do not fit in the file")
    octets = np.frombuffer(view, np.uint8)
    commands = _commands(view, count, 32 + size, path)
    segments, raw = _segments(view, commands, path)
    sections = _sections(raw, path, len(view))
    return MachoFile(
        path=path,
        content=view,
        octets=octets,
        machine=MACHINES[cpu],
        kind=kind,
        flags=flags,
        segments=segments,
        sections=sections,
        symbols=_symbols(view, octets, commands, sections, path),
        indirect=_indirect(view, commands, path),
        data_in_code=_data_in_code(view, commands, path),
        uuid=next((bytes(view[at + 8 : at + 24]).hex() for cmd, at, size in commands if cmd == LC_UUID), ""),
    )


def check_with_lief(file: MachoFile) -> None:
    """Refuse what lief cannot read, or reads with another number of sections. It is shown the headers alone."""
    import lief  # only here, as in `elf_file`

    end = 32 + int.from_bytes(file.content[20:24], "little")
    header = bytearray(file.content[:end])
    for cmd, at, size in _commands(file.content, int.from_bytes(file.content[16:20], "little"), end, file.path):
        if cmd == LC_SEGMENT_64:
            header[at + 32 : at + 56] = bytes(24)  # size, offset and file size
            for row in range(at + _SEGMENT.itemsize, at + size, _SECTION.itemsize):
                header[row + 40 : row + 52] = bytes(12)  # size and offset
                header[row + 56 : row + 64] = bytes(8)  # relocations
        elif cmd != LC_UUID:
            header[at + 8 : at + size] = bytes(size - 8)
            header[at : at + 4] = (0x7FFF0000).to_bytes(4, "little")  # nothing that lief looks into
    lief.logging.disable()
    found = lief.MachO.parse(BytesIO(bytes(header)))
    if found is None or isinstance(found, lief.lief_errors) or len(found) != 1:
        malformed(file.path, "lief cannot read this file")
    binary: Any = found.at(0)
    if len(binary.sections) != len(file.sections):
        malformed(file.path, "the section table can be read in two ways")


def _wrong_architecture(path: str, found: str) -> NoReturn:
    raise IpbpError(
        "object-wrong-architecture",
        f"{path}: {found}, where a file for x86-64 or little-endian AArch64 is needed",
        "Build for one of these; `lipo -thin` takes one architecture out of a universal file.",
    )


def _commands(view: memoryview, count: int, end: int, path: str) -> list[tuple[int, int, int]]:
    """(command, place, size) of each load command."""
    found, at = [], 32
    for _ in range(count):
        if at + 8 > end:
            malformed(path, "a load command is outside the header")
        row = np.frombuffer(view, _COMMAND, 1, at)[0]
        cmd, size = int(row["cmd"]), int(row["size"])
        if size < 8 or size > end - at:
            malformed(path, "a load command has a size that cannot be")
        found.append((cmd, at, size))
        at += size
    return found


def _segments(
    view: memoryview, commands: list[tuple[int, int, int]], path: str
) -> tuple[tuple[MachoSegment, ...], npt.NDArray[np.void]]:
    segments, sections = [], [np.empty(0, _SECTION)]
    for cmd, at, size in commands:
        if cmd != LC_SEGMENT_64:
            continue
        if size < _SEGMENT.itemsize:
            malformed(path, "a segment command is too short")
        row = np.frombuffer(view, _SEGMENT, 1, at)[0]
        count = int(row["count"])
        if count > 255 or size < _SEGMENT.itemsize + count * _SECTION.itemsize:
            malformed(path, f"{count} section headers do not fit in their segment's command")
        address, memory, offset, stored = (int(row[name]) for name in ("address", "size", "offset", "file_size"))
        if max(address, memory) >= 1 << 62 or offset + stored > len(view) or stored > memory:
            malformed(path, "a segment is not inside the file")
        segments.append(MachoSegment(_text(row["name"]), address, memory, offset, stored, int(row["initprot"])))
        sections.append(np.frombuffer(view, _SECTION, count, at + _SEGMENT.itemsize))
    rows = np.concatenate(sections)
    if len(rows) > 255:
        malformed(path, f"{len(rows)} sections, where a symbol can name 255")
    return tuple(segments), rows


def _sections(raw: npt.NDArray[np.void], path: str, length: int) -> MachoSections:
    if (raw["align"] > 31).any() or (raw["size"] >= 1 << 40).any() or (raw["address"] >= 1 << 62).any():
        malformed(path, "a section is larger than memory")
    names = (f"{_text(row['segment'])},{_text(row['name'])}" for row in raw)
    result = MachoSections(
        name=tuple(names),
        address=raw["address"].astype(np.int64),
        size=raw["size"].astype(np.int64),
        offset=raw["offset"].astype(np.int64),
        alignment=np.int64(1) << raw["align"].astype(np.int64),
        relocations_at=raw["reloff"].astype(np.int64),
        relocations=raw["nreloc"].astype(np.int64),
        flags=raw["flags"].astype(np.int64),
        reserved1=raw["reserved1"].astype(np.int64),
        reserved2=raw["reserved2"].astype(np.int64),
    )
    with_bytes = ~np.isin(result.kind, ZEROED)
    check_inside(path, result.offset[with_bytes], result.size[with_bytes], length)
    check_inside(path, result.relocations_at, 8 * result.relocations, length)
    return result


def _text(name: bytes) -> str:
    return bytes(name).rstrip(b"\0").decode("utf-8", "surrogateescape")


def _table(commands: list[tuple[int, int, int]], wanted: int, least: int, path: str) -> int | None:
    """Where the only command of this number is, None without one."""
    found = [(at, size) for cmd, at, size in commands if cmd == wanted]
    if len(found) > 1 or any(size < least for _at, size in found):
        malformed(path, "a symbol table's command is damaged")
    return found[0][0] if found else None


def _symbols(
    view: memoryview, octets: U8, commands: list[tuple[int, int, int]], sections: MachoSections, path: str
) -> MachoSymbols:
    at, count, text_at, text_size = _table(commands, LC_SYMTAB, 24, path), 0, 0, 0
    start = 0
    if at is not None:
        start, count, text_at, text_size = (int(word) for word in np.frombuffer(view, "<u4", 4, at + 8))
    if start + count * _SYMBOL.itemsize > len(view) or text_at + text_size > len(view):
        malformed(path, "the symbol table is not inside the file")
    raw = np.frombuffer(view, _SYMBOL, count, start) if count else np.empty(0, _SYMBOL)
    type_, section = raw["type"].astype(np.int64), raw["section"].astype(np.int64)
    is_stab = (type_ & N_STAB) != 0
    kind = type_ & N_TYPE
    in_section = (kind == N_SECT) & ~is_stab
    home = np.where(in_section, section, 0)
    if (in_section & ((section == 0) | (section > len(sections)))).any():
        malformed(path, "a symbol is in a section that is not there")
    value = raw["value"].view(np.int64) if count else np.empty(0, np.int64)
    first = np.append(0, sections.address)[home]
    in_place = ~in_section | ((value >= first) & (value - first <= np.append(0, sections.size)[home]))
    rows = names_in(octets, text_at, text_size, np.where(is_stab, 0, raw["name"]).astype(np.uint32), path).rows
    names, private, holds_together = _plain_names(rows, is_stab)
    return MachoSymbols(
        name=names,
        kind=kind,
        is_stab=is_stab,
        is_external=(type_ & N_EXT) != 0,
        is_hidden=(type_ & N_PEXT) != 0,
        section=home,
        desc=raw["desc"].astype(np.int64),
        value=value,
        in_place=in_place,
        private=private,
        holds_together=holds_together & in_section,
    )


def _plain_names(rows: ByteRows, is_stab: Flags) -> tuple[Names, Flags, Flags]:
    """Names as a program's source has them; which of them are private labels; which of those begin an atom: those that
    reach the linker (`l`), but not the marks of sections' starts (`ltmp0`) that LLVM makes for AArch64."""
    names = Names(rows)
    mangled, given = names.start_with(b"_"), names.are_given() & ~is_stab
    # LLVM numbers the exception tables of a file; their names say nothing.
    for_linker = (names.start_with(b"l") | names.start_with(b"GCC_except_table")) & given
    private = for_linker | (names.start_with(b"L") & given)
    cut = ByteRows(rows.octets, rows.start + mangled, np.where(private | is_stab, 0, rows.length - mangled))
    plain = np.flatnonzero(given & ~mangled & ~private).tolist()
    verbatim = {row: _VERBATIM + names[row] for row in plain}
    return Names(cut).with_text(verbatim), private, for_linker & ~names.start_with(b"ltmp")


def _data_in_code(view: memoryview, commands: list[tuple[int, int, int]], path: str) -> I64:
    at = _table(commands, LC_DATA_IN_CODE, 16, path)
    if at is None:
        return np.empty((0, 2), dtype=np.int64)
    start, size = (int(word) for word in np.frombuffer(view, "<u4", 2, at + 8))
    if start + size > len(view):
        malformed(path, "the table of data in code is not inside the file")
    rows = np.frombuffer(view, [("place", "<u4"), ("size", "<u2"), ("kind", "<u2")], size // 8, start)
    return np.stack([rows["place"].astype(np.int64), rows["size"].astype(np.int64)], axis=1)


def _indirect(view: memoryview, commands: list[tuple[int, int, int]], path: str) -> I64:
    at = _table(commands, LC_DYSYMTAB, 80, path)
    if at is None:
        return np.empty(0, dtype=np.int64)
    start, count = (int(word) for word in np.frombuffer(view, "<u4", 2, at + 56))
    if start + 4 * count > len(view):
        malformed(path, "the table of indirect symbols is not inside the file")
    return np.frombuffer(view, "<u4", count, start).astype(np.int64)
