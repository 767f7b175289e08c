"""A linked ELF file (an executable or a shared library): its segments and sections, checked.

What runs is described by segments (gABI, "Program Header"); sections are an extra that linkers leave in and `strip`
or a packer may remove, so nothing that is needed to run is looked for by section. The same reader serves a file on
disk and the picture of one that was read back from memory (the vdso has no file).

Everything is in link addresses here; `elf_image` adds the bias.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ipbp.errors import IpbpError
from ipbp.formats.elf_file import (
    MACHINES,
    SHN_XINDEX,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_STRTAB,
    names_in,
    refuse_other_formats,
)
from ipbp.graph.names import Names
from ipbp.host.mapped_head import build_id_in

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_TLS = 1, 2, 3, 4, 7
PF_X = 1
ET_EXEC, ET_DYN = 2, 3

_SEGMENT = np.dtype(
    [
        ("type", "<u4"),
        ("flags", "<u4"),
        ("offset", "<u8"),
        ("address", "<u8"),
        ("physical", "<u8"),
        ("file_size", "<u8"),
        ("size", "<u8"),
        ("align", "<u8"),
    ]
)
_SECTION = np.dtype(
    [
        ("name", "<u4"),
        ("type", "<u4"),
        ("flags", "<u8"),
        ("address", "<u8"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("link", "<u4"),
        ("info", "<u4"),
        ("align", "<u8"),
        ("entry", "<u8"),
    ]
)
SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
RELA = np.dtype([("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])


@dataclass(frozen=True, slots=True)
class LinkedSegment:
    """A program header. `file_size` bytes at `offset` of the file appear at `address`; zeros follow up to `size`."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    size: int
    align: int


@dataclass(frozen=True, slots=True)
class LinkedSection:
    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    entry_size: int

    @property
    def end(self) -> int:
        return self.address + self.size


@dataclass(frozen=True, slots=True)
class LinkedFile:
    """`is_pie`: ET_DYN, loaded at an address that the kernel chooses. `sections` may be empty."""

    path: str
    content: memoryview
    is_pie: bool
    segments: tuple[LinkedSegment, ...]
    sections: tuple[LinkedSection, ...]

    @property
    def machine(self) -> str:
        return MACHINES[_number(self.content, 18, 2)]

    def segment(self, type_: int) -> LinkedSegment | None:
        return next((row for row in self.segments if row.type == type_), None)

    def loads(self) -> list[LinkedSegment]:
        return [row for row in self.segments if row.type == PT_LOAD]

    def section(self, name: str) -> LinkedSection | None:
        return next((row for row in self.sections if row.name == name), None)

    def section_content(self, section: LinkedSection) -> memoryview:
        if section.type == SHT_NOBITS:
            return memoryview(b"")
        return self.content[section.offset : section.offset + section.size]

    def at(self, address: int, size: int) -> memoryview | None:
        """`size` bytes that the file puts at a link address; None where it has none (zero-filled or outside)."""
        for row in self.segments:
            if row.type == PT_LOAD and row.address <= address and address + size <= row.address + row.file_size:
                start = row.offset + address - row.address
                return self.content[start : start + size]
        return None

    def room_at(self, address: int) -> int:
        """Bytes of the file from a link address to the end of its segment."""
        for row in self.segments:
            if row.type == PT_LOAD and row.address <= address < row.address + row.file_size:
                return row.address + row.file_size - address
        return 0

    def build_id(self) -> str:
        """NT_GNU_BUILD_ID in hex, or ""."""
        return next((found for found in map(build_id_in, self._notes()) if found), "")

    def _notes(self) -> Iterator[bytes]:
        for segment in self.segments:
            if segment.type == PT_NOTE:
                yield bytes(self.content[segment.offset : segment.offset + segment.file_size])
        for section in self.sections:
            if section.type == SHT_NOTE:
                yield bytes(self.section_content(section))


def map_file(file: str) -> memoryview:
    """The content of a file, mapped. Errors: `image-unreadable`."""
    try:
        with open(file, "rb") as stream:
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise IpbpError(
            "image-unreadable",
            f"{file} cannot be read: {error}",
            "Run the debugger as the user who runs the program.",
        ) from error


def let_go(content: memoryview, start: int, end: int) -> None:
    """These bytes of a mapped file were read once and need not stay in our memory: they are read again when somebody
    asks for them (madvise(2), MADV_DONTNEED)."""
    page = mmap.PAGESIZE
    start, end = -(-start // page) * page, min(end, len(content)) // page * page
    if isinstance(content.obj, mmap.mmap) and start < end:
        content.obj.madvise(mmap.MADV_DONTNEED, start, end - start)


def read_linked(content: bytes | memoryview | Any, path: str) -> LinkedFile:
    """The checked headers of an executable or shared library; `content` is the file or an mmap of it.

    Errors: `image-malformed`, `image-wrong-architecture`.
    """
    view = memoryview(content)
    is_pie = _is_pie(view, path)
    return LinkedFile(path, view, is_pie, _segments(view, path), _sections(view, path))


def read_debug_parts(content: bytes | memoryview | Any, path: str) -> LinkedFile:
    """What a file with the symbols and debug information of another one has to say: its sections. Its program headers
    are that one's, and lead nowhere here. Errors: as of `read_linked`."""
    view = memoryview(content)
    return LinkedFile(path, view, _is_pie(view, path), (), _sections(view, path))


def _is_pie(view: memoryview, path: str) -> bool:
    refuse_other_formats(bytes(view[:4]), path, "image-wrong-architecture")
    if len(view) < 64 or bytes(view[:4]) != b"\x7fELF":
        malformed(path, "not an ELF file")
    if view[4] != 2 or view[5] != 1 or _number(view, 18, 2) not in MACHINES:
        raise IpbpError(
            "image-wrong-architecture",
            f"{path}: not an ELF file for x86-64 or little-endian AArch64",
            "Build it for one of these: ipbp patches no other programs so far.",
        )
    kind = _number(view, 16, 2)
    if kind not in (ET_EXEC, ET_DYN):
        malformed(path, f"neither an executable nor a shared library (ELF type {kind})")
    return kind == ET_DYN


def malformed(path: str, fact: str) -> NoReturn:
    raise IpbpError("image-malformed", f"{path}: {fact}", "The file is damaged: build the program again.")


def names_of(table: memoryview, offsets: npt.NDArray[np.uint32], path: str) -> Names:
    """The names at these offsets of a string table of a linked file. In a copy of the table: a file that was mapped
    may be written anew while its names are in use."""
    try:
        return names_in(np.frombuffer(bytes(table), np.uint8), 0, len(table), offsets, path)
    except IpbpError as error:
        raise IpbpError("image-malformed", error.fact, "The file is damaged: build the program again.") from error


def names_at(table: memoryview, offsets: npt.NDArray[np.uint32], path: str) -> list[str]:
    """The string at each offset of a string table of a linked file, for tables of a few."""
    return list(names_of(table, offsets, path))


def _number(view: memoryview, offset: int, width: int) -> int:
    return int.from_bytes(view[offset : offset + width], "little")


def _segments(view: memoryview, path: str) -> tuple[LinkedSegment, ...]:
    start, size, count = _number(view, 32, 8), _number(view, 54, 2), _number(view, 56, 2)
    if count == 0 or size != 56 or start + 56 * count > len(view):
        malformed(path, "the program headers are not inside the file")
    raw = np.frombuffer(view, _SEGMENT, count, start)
    columns = ("type", "flags", "offset", "address", "file_size", "size", "align")
    rows = tuple(LinkedSegment(*values) for values in zip(*(raw[name].tolist() for name in columns), strict=True))
    for row in rows:
        if row.type in (PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_TLS) and row.offset + row.file_size > len(view):
            malformed(path, "a segment is not inside the file")
        if row.type == PT_LOAD and (row.file_size > row.size or row.address + row.size > 1 << 47):
            malformed(path, "a segment has an impossible size")
        if row.type == PT_TLS and (row.align & (row.align - 1) or row.size > 1 << 32):
            malformed(path, "the thread-local segment has an impossible size")
    if not any(row.type == PT_LOAD for row in rows):
        malformed(path, "nothing in it is loaded")
    return rows


def _sections(view: memoryview, path: str) -> tuple[LinkedSection, ...]:
    start, size, count, names_in = (_number(view, at, width) for at, width in ((40, 8), (58, 2), (60, 2), (62, 2)))
    if start == 0 or size != 64:
        return ()
    if start > len(view) - 64:
        malformed(path, "the section headers are not inside the file")
    first = np.frombuffer(view, _SECTION, 1, start)[0]
    count = count or int(first["size"])
    names_in = int(first["link"]) if names_in == SHN_XINDEX else names_in
    if count > (len(view) - start) // 64 or names_in >= count:
        malformed(path, "the section headers are not inside the file")
    raw = np.frombuffer(view, _SECTION, count, start)
    stored = (raw["type"] != SHT_NOBITS) & (raw["type"] != 0)
    length = np.uint64(len(view))
    if (stored & ((raw["offset"] > length) | (raw["size"] > length - np.minimum(raw["offset"], length)))).any():
        malformed(path, "a section is not inside the file")
    if (raw["link"] >= count).any() or raw["type"][names_in] != SHT_STRTAB:
        malformed(path, "a section links to one that is not there")
    table = view[int(raw["offset"][names_in]) :][: int(raw["size"][names_in])]
    names = names_at(table, raw["name"], path)
    columns = ("type", "flags", "address", "offset", "size", "link", "entry")
    rows = zip(names, *(raw[name].tolist() for name in columns), strict=True)
    return tuple(LinkedSection(*row) for row in rows)
