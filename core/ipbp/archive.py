"""Static archives (ar): rustc puts the objects of a library crate into one, the `.rlib`. Read here: the System V
format with GNU's long names, thin archives excluded (ar(5); GNU binutils, "bfd/archive.c").
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

MAGIC = b"!<arch>\n"
_HEADER = 60
_END_OF_HEADER = b"`\n"


class NotAnArchive(Exception):
    """The bytes are no archive, or one that was cut short; the text says where."""


def members(content: bytes | memoryview) -> Iterator[tuple[str, memoryview]]:
    """Name and bytes of each member, in order, without the symbol index and the table of long names. Raises
    NotAnArchive."""
    yield from ((name, row) for _, name, row in _rows(memoryview(content)))


def defined_names(content: bytes | memoryview | mmap.mmap) -> dict[str, str]:
    """What the archive's own index says: symbol -> name of the member that defines it; the first of several. Nothing
    for an archive without an index. Raises NotAnArchive."""
    view = memoryview(content)
    header = bytes(view[len(MAGIC) : len(MAGIC) + _HEADER])
    name, size = header[:16].rstrip(), header[48:58].strip()
    if name not in (b"/", b"/SYM64/") or not size.isdigit():
        return {}
    width = 8 if name == b"/SYM64/" else 4  # big-endian: a count, the places of members, the names in that order
    index = bytes(view[len(MAGIC) + _HEADER :][: int(size)])
    count = int.from_bytes(index[:width], "big")
    places = [int.from_bytes(index[width * row :][:width], "big") for row in range(1, count + 1)]
    names = index[width * (count + 1) :].split(b"\0")
    member_at = {place: member for place, member, _ in _rows(view)}
    found: dict[str, str] = {}
    for place, symbol in zip(places, names, strict=False):
        if place in member_at:
            found.setdefault(symbol.decode("utf-8", "surrogateescape"), member_at[place])
    return found


def _rows(view: memoryview) -> Iterator[tuple[int, str, memoryview]]:
    """Place of the header, name and bytes of each member."""
    if view[: len(MAGIC)] != MAGIC:
        raise NotAnArchive("it does not begin as an archive does")
    long_names = b""
    place = len(MAGIC)
    while place < len(view):
        header = bytes(view[place : place + _HEADER])
        size = header[48:58].strip()
        start = place + _HEADER
        if len(header) < _HEADER or header[58:] != _END_OF_HEADER or not size.isdigit():
            raise NotAnArchive(f"the header at {place:#x} is damaged")
        end = start + int(size)
        if end > len(view):
            raise NotAnArchive(f"the member at {place:#x} does not fit in it")
        name = header[:16].rstrip()
        if name == b"//":
            long_names = bytes(view[start:end])
        elif name not in (b"/", b"/SYM64/"):
            yield place, _name(name, long_names), view[start:end]
        place = end + (end & 1)


def _name(field: bytes, long_names: bytes) -> str:
    if field[:1] == b"/" and field[1:].isdigit():
        start = int(field[1:])
        field = long_names[start : long_names.find(b"\n", start)]
    return field.removesuffix(b"/").decode("utf-8", "surrogateescape")
