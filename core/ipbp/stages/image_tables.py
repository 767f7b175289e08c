"""Where the exception tables of a loaded image's functions are, as its unwind table says it.

`.eh_frame_hdr` has the functions in order, each with its record in `.eh_frame`; that record leads to the table of what
the function catches (Linux Standard Base Core, "DWARF Extensions"; DWARF 5, 6.4.1). Linkers write the index in one way,
`--eh-frame-hdr`, which compilers ask for. Of an image without one (static, as a rule) the records are read one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ipbp.graph.image import LoadedImage

_INDEX = (1, 0x1B, 0x03, 0x3B)  # version; pcrel sdata4, udata4, datarel sdata4
_HEADER = 12
_SIZES = {0x00: 8, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}  # DW_EH_PE_*, the low four bits
_SIGNED, _PC_RELATIVE, _OMITTED = 0x08, 0x10, 0xFF
_RECORD = 256  # bytes in which the head of a record surely is


def exception_tables(image: LoadedImage, functions: Iterable[int]) -> dict[int, int]:
    """Load address of a function -> that of its exception table, of those that have one."""
    index = _index(image) or _read_through(image)
    found = {}
    for function in functions if index is not None else ():
        row = int(np.searchsorted(index.start, function)) if index is not None else 0
        if index is not None and row < len(index.start) and int(index.start[row]) == function:
            table = _table(image, int(index.record[row]))
            if table:
                found[function] = table
    return found


@dataclass(frozen=True, slots=True)
class _Index:
    """Load addresses of functions, sorted, and of their records."""

    start: np.typing.NDArray[np.int64]
    record: np.typing.NDArray[np.int64]


def _index(image: LoadedImage) -> _Index | None:
    place = next(((start, end) for name, start, end in image.sections if name == ".eh_frame_hdr"), None)
    content = image.original(place[0], place[1] - place[0]) if place is not None else None
    if place is None or content is None or tuple(content[:4]) != _INDEX:
        return None
    count = int.from_bytes(content[8:12], "little")
    rows = np.frombuffer(content, "<i4", 2 * count, _HEADER).reshape(-1, 2).astype(np.int64) + place[0]
    return _Index(rows[:, 0], rows[:, 1])


def _read_through(image: LoadedImage) -> _Index | None:
    place = next(((start, end) for name, start, end in image.sections if name == ".eh_frame"), None)
    content = image.original(place[0], place[1] - place[0]) if place is not None else None
    if place is None or content is None:
        return None
    at, common, found = 0, dict[int, _Common | None](), list[tuple[int, int]]()
    while at + 8 <= len(content):
        length, distance = struct.unpack_from("<II", content, at)
        if length in (0, 0xFFFFFFFF):  # the end; records of more than 4 GiB
            break
        if distance:
            head = at + 4 - distance
            if head not in common:
                common[head] = _common(image, place[0] + head)
            how = common[head]
            if how is not None:
                fields = _Fields(image, place[0] + at, content[at : at + 24])
                fields.skip(8)
                found.append((fields.number(how.start), place[0] + at))
        at += 4 + length
    rows = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    return _Index(rows[:, 0], rows[:, 1])


def _table(image: LoadedImage, record: int) -> int:
    """What the record at this load address says, 0 for nothing."""
    fields = _Fields(image, record)
    length, distance = fields.number(0x03), fields.number(0x03)
    if length in (0, 0xFFFFFFFF) or not fields.is_whole:
        return 0
    common = _common(image, record + 4 - distance)
    if common is None or common.table == _OMITTED:
        return 0
    fields.number(common.start)
    fields.number(common.start & 0x0F)  # the length
    fields.leb()  # of what follows
    place = fields.at
    value = fields.number(common.table)
    return value if value and value != record + place else 0


@dataclass(frozen=True, slots=True)
class _Common:
    """How pointers are written: to a function and to its table."""

    start: int
    table: int


def _common(image: LoadedImage, record: int) -> _Common | None:
    """Of a CIE; None for one that is not understood."""
    fields = _Fields(image, record)
    fields.number(0x03)
    if fields.number(0x03) != 0:
        return None
    version = fields.octet()
    letters = fields.text()
    if version not in (1, 3) or not letters.startswith("z"):
        return None
    fields.leb()  # code alignment
    fields.leb()  # data alignment
    fields.octet() if version == 1 else fields.leb()  # return address
    fields.leb()  # of what follows
    start, table = 0x00, _OMITTED
    for letter in letters[1:]:
        if letter == "P":
            fields.number(fields.octet() & 0x7F)  # the personality, maybe by way of a cell
        elif letter == "L":
            table = fields.octet()
        elif letter == "R":
            start = fields.octet()
        elif letter not in "SB":
            return None
    return _Common(start, table) if fields.is_whole else None


class _Fields:
    """The fields of one record, in order. `is_whole`: none was outside of the image, or in an unknown form."""

    def __init__(self, image: LoadedImage, record: int, content: bytes = b"") -> None:
        self._content = content or _bytes(image, record)
        self._record, self.at = record, 0
        self.is_whole = bool(self._content)

    def skip(self, size: int) -> None:
        self.at += size

    def octet(self) -> int:
        return self._plain(1)

    def text(self) -> str:
        end = self._content.find(b"\0", self.at)
        found = self._content[self.at : end] if end >= 0 else b""
        self.at += len(found) + 1
        return found.decode("latin-1")

    def leb(self) -> None:
        while self.octet() & 0x80:
            pass

    def number(self, form: int) -> int:
        size, place = _SIZES.get(form & 0x0F, 0), self._record + self.at
        self.is_whole &= bool(size)
        value = self._plain(size)
        if form & _SIGNED and value >> (8 * size - 1):
            value -= 1 << (8 * size)
        return value + place if form & 0x70 == _PC_RELATIVE else value

    def _plain(self, size: int) -> int:
        found = self._content[self.at : self.at + size]
        self.is_whole &= len(found) == size
        self.at += size
        return int.from_bytes(found, "little")


def _bytes(image: LoadedImage, record: int) -> bytes:
    for size in (_RECORD, _RECORD // 4, 24):  # the last record ends with the section, and its segment may, too
        found = image.original(record, size)
        if found is not None:
            return found
    return b""
