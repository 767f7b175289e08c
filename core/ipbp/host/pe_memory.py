"""What memory tells of a process of Windows: which PE images are loaded where, and what they export.

The thread's own block (TEB) leads to the process's (PEB), that to the loader's list of modules; each module begins with
the headers of its file. Offsets are those of 64-bit Windows (winternl.h and the "PE Format" of Microsoft); Wine has
the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Iterator

from ipbp.errors import IpbpError
from ipbp.host.memory import Readable
from ipbp.protocol import Region

LAST_ERROR = 0x68
"""Offset in a TEB of the thread's GetLastError."""
_STACK_BASE, _STACK_LIMIT, _PEB = 0x08, 0x10, 0x60
_LOADER, _IN_LOAD_ORDER = 0x18, 0x10  # PEB.Ldr; PEB_LDR_DATA.InLoadOrderModuleList
_BASE, _SIZE, _NAME = 0x30, 0x40, 0x48  # LDR_DATA_TABLE_ENTRY: DllBase, SizeOfImage, FullDllName
_MODULES = 4096
_PAGE = 4096
_EXPORTS, _EXCEPTIONS = 0, 3  # data directories
_SECTION = struct.Struct("<8sIIIIIIHHI")
_FLAGS = ((0x40000000, "r"), (0x80000000, "w"), (0x20000000, "x"))  # IMAGE_SCN_MEM_*


@dataclass(frozen=True)
class Module:
    """A loaded image: [`start`, `start` + `size`), and the path of its file in the process's own words."""

    start: int
    size: int
    path: str


def peb_of(memory: Readable, teb: int) -> int:
    return _word(memory, teb + _PEB)


def stack_of(memory: Readable, teb: int) -> tuple[int, int]:
    """Where the stack of this thread is, as far as it has grown."""
    return _word(memory, teb + _STACK_LIMIT), _word(memory, teb + _STACK_BASE)


def modules(memory: Readable, peb: int) -> list[Module]:
    """In the order in which they were loaded: the program first. Errors: `inferior-memory`; `inferior-remote` where
    the loader has made no list yet."""
    loader = _word(memory, peb + _LOADER)
    if not loader:
        raise IpbpError(
            "inferior-remote", "the program's loader has not begun yet", "Let the program run up to `main`, then patch."
        )
    head, found = loader + _IN_LOAD_ORDER, list[Module]()
    entry = _word(memory, head)
    while entry != head and len(found) < _MODULES:
        row = memory.read(entry, _NAME + 16)
        length, where = int.from_bytes(row[_NAME : _NAME + 2], "little"), _number(row, _NAME + 8)
        path = memory.read(where, length).decode("utf-16-le", "replace")
        found.append(Module(_number(row, _BASE), int.from_bytes(row[_SIZE : _SIZE + 4], "little"), path))
        entry = _number(row, 0)
    return found


def regions_of(memory: Readable, module: Module, path: str) -> list[Region]:
    """The module's parts, as the loader has protected them: its headers, then its sections; `path` as what to call
    them."""
    head = _Head(memory, module.start)
    found = [Region(module.start, module.start + _whole_pages(head.header_size), "r", 0, path)]
    for row in head.sections():
        start = module.start + row.address
        found.append(Region(start, start + _whole_pages(row.end - row.address), row.protection, row.offset, path))
    return found


def exports(memory: Readable, module: Module) -> dict[str, int]:
    """Names that the module exports and their addresses, without those that it hands on to another module ("PE Format",
    "The .edata Section")."""
    start, size = _Head(memory, module.start).directory(_EXPORTS)
    table = memory.read(module.start + start, size) if size else bytes(40)
    count, functions, names, ordinals = struct.unpack_from("<IIII", table, 24)
    found = {}
    for row in range(count):
        (at,) = struct.unpack_from("<I", table, names - start + 4 * row)
        (number,) = struct.unpack_from("<H", table, ordinals - start + 2 * row)
        (place,) = struct.unpack_from("<I", table, functions - start + 4 * number)
        if not start <= place < start + size:
            found[_text(table, at - start)] = module.start + place
    return found


def function_at(memory: Readable, module: Module, address: int) -> tuple[int, int]:
    """Where the function that has this address begins and ends, as the rows of the module's `.pdata` say; between two
    rows are functions without one, which are as good as one then."""
    start, size = _Head(memory, module.start).directory(_EXCEPTIONS)
    table = memory.read(module.start + start, size) if size else b""
    rows = sorted(struct.unpack_from("<II", table, at) for at in range(0, size - size % 12, 12))
    place, low, high = address - module.start, 0, module.size
    for first, last in rows:
        if first <= place < last:
            return module.start + first, module.start + last
        low, high = (max(low, last), high) if last <= place else (low, min(high, first))
    part = next((row for row in _Head(memory, module.start).sections() if row.address <= place < row.end), None)
    if part is not None:
        low, high = max(low, part.address), min(high, part.end)
    return module.start + low, module.start + high


def base_name(path: str) -> str:
    """Of a path of Windows, as its file systems compare names."""
    return path.replace("/", "\\").rsplit("\\", 1)[-1].lower()


@dataclass(frozen=True)
class _Part:
    address: int
    end: int
    offset: int
    protection: str


class _Head:
    """The headers of a loaded image ("PE Format", "Optional Header")."""

    def __init__(self, memory: Readable, start: int) -> None:
        self._content = memory.read(start, _PAGE)
        at = int.from_bytes(self._content[60:64], "little")
        if self._content[:2] != b"MZ" or at + 24 > _PAGE or self._content[at : at + 4] != b"PE\0\0":
            raise IpbpError("inferior-memory", f"no PE image is at {start:#x}", "Restart the program.")
        self._at = at

    @property
    def header_size(self) -> int:
        return self._four(self._at + 24 + 60)

    def directory(self, number: int) -> tuple[int, int]:
        """Place from the image's start, and size, of a data directory; (0, 0) where there is none."""
        at = self._at + 24 + 112 + 8 * number
        return (self._four(at), self._four(at + 4)) if number < self._four(self._at + 24 + 108) else (0, 0)

    def sections(self) -> Iterator[_Part]:
        count = int.from_bytes(self._content[self._at + 6 : self._at + 8], "little")
        first = self._at + 24 + int.from_bytes(self._content[self._at + 20 : self._at + 22], "little")
        for at in range(first, min(first + 40 * count, _PAGE - 39), 40):
            _, size, address, stored, offset, _, _, _, _, flags = _SECTION.unpack_from(self._content, at)
            letters = "".join(letter for bit, letter in _FLAGS if flags & bit)
            yield _Part(address, address + (size or stored), offset, letters)

    def _four(self, at: int) -> int:
        return int.from_bytes(self._content[at : at + 4], "little")


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode("latin-1")


def _word(memory: Readable, address: int) -> int:
    return _number(memory.read(address, 8), 0)


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")
