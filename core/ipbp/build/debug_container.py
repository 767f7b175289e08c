"""A file with debug information, opened: ELF by pyelftools, PE as far as pyelftools' callers here ask for it.

DWARF is the same in both. A PE file's sections have names of eight letters, longer ones stand in its string table, and
none is compressed ("PE Format", "Section Table"; the binutils write `.debug_*` so).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

_SYMBOL, _ROW = 18, 40


def opened(file: Any) -> Any:
    """An `ELFFile`, or what answers like one. Errors: those of pyelftools."""
    file.seek(0)
    return PeContainer(file) if file.read(2) == b"MZ" else ELFFile(file)


@dataclass(frozen=True)
class PeSection:
    """As pyelftools' sections are asked."""

    stream: Any
    name: str
    offset: int
    size: int
    compressed: bool = False

    def __getitem__(self, field: str) -> int:
        return {"sh_offset": self.offset, "sh_size": self.size}[field]

    def data(self) -> bytes:
        self.stream.seek(self.offset)
        return bytes(self.stream.read(self.size))


class PeContainer:
    """As `ELFFile` is asked. Errors: ELFError where the headers are damaged."""

    little_endian = True

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        at = self._number(60, 4)
        if self._read(at, 4) != b"PE\0\0":
            raise ELFError("a PE file without its signature")
        first = at + 24 + self._number(at + 20, 2)
        self._text_at = self._number(at + 12, 4) + _SYMBOL * self._number(at + 16, 4)
        self._sections = [self._section(first + _ROW * row) for row in range(self._number(at + 6, 2))]

    def get_machine_arch(self) -> str:
        return "x64"

    def iter_sections(self) -> Iterator[PeSection]:
        return iter(self._sections)

    def get_section_by_name(self, name: str) -> PeSection | None:
        return next((row for row in self._sections if row.name == name), None)

    def _section(self, at: int) -> PeSection:
        name = self._read(at, 8).rstrip(b"\0")
        if name[:1] == b"/" and name[1:].isdigit():
            name = self._read(self._text_at + int(name[1:]), 256).partition(b"\0")[0]
        stored = self._number(at + 16, 4)
        size = min(self._number(at + 8, 4), stored)  # what follows fills the file's alignment
        return PeSection(self.stream, name.decode("latin-1"), self._number(at + 20, 4), size)

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self._read(at, size), "little")

    def _read(self, at: int, size: int) -> bytes:
        self.stream.seek(at)
        content = bytes(self.stream.read(size))
        if not content:
            raise ELFError("a PE file that ends in its headers")
        return content
