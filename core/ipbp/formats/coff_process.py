"""A process of Windows: its program, read from its file and proved to be the one that is loaded.

Libraries are not looked at: what code names of theirs the program has cells or stubs for, which its linker made and
its loader has filled, and what it has none for is not to be had without knowing which library the user would link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ipbp.errors import IpbpError
from ipbp.formats.coff_image import read_image
from ipbp.formats.elf_linked import LinkedFile, map_file
from ipbp.formats.elf_mapped import MappedFile
from ipbp.formats.elf_module import LoadedModule
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.host.memory import Readable
from ipbp.host.pe_memory import Module, base_name
from ipbp.protocol import PatchedImage, Region

_PAGE = 4096
_BASE = 24 + 24  # of ImageBase, from the signature on; the loader writes where it has put the image


@dataclass(frozen=True)
class PeModule(LoadedModule):
    """A PE file of the process. It has none of ELF's tables."""

    @cached_property
    def _opened(self) -> tuple[LinkedFile, str, int]:
        path = self.mapped.path
        return LinkedFile(path, memoryview(b""), True, (), ()), path, 0

    @cached_property
    def debug_file(self) -> str:
        return self.mapped.path

    @cached_property
    def bias(self) -> int:
        return self.image.bias

    @cached_property
    def image(self) -> LoadedImage:
        """Errors: `image-unreadable` when the file is not the one that is loaded; those of `read_image`."""
        content = map_file(self.mapped.path)
        (head,) = self.read([(self.mapped.start, _PAGE)])
        if head is None or not _is_head_of(content, head):
            raise IpbpError(
                "image-unreadable",
                f"{self.mapped.path} is not the file of the program that runs: its headers are others",
                "Tell gdb the file that was started (`file PROGRAM`).",
            )
        return read_image(content, self.mapped.path, self.mapped.start)

    @cached_property
    def key(self) -> str:
        return PatchedImage(self.mapped.path, self.mapped.start, self.mapped.end).key


@dataclass(frozen=True)
class WindowsProcess(LoadedProcess):
    """`LoadedProcess` with the program as its only image. `regions`: of it and of all libraries."""

    regions: Sequence[Region] = ()

    def library(self, name: str) -> Module:
        """The library with this file name, in lower case. Errors: `image-unreadable` when it is not loaded."""
        rows = [row for row in self.regions if base_name(row.path) == name]
        if not rows:
            fact = f"{name} is not among the libraries of the process"
            raise IpbpError("image-unreadable", fact, "Let the program run up to `main`, then patch.")
        return Module(rows[0].start, rows[-1].end - rows[0].start, rows[0].path)

    def code_of(self, module: Module) -> list[tuple[int, int]]:
        """Where the code of a library is."""
        return [(row.start, row.end) for row in self.regions if row.path == module.path and "x" in row.protection]


class Memory(Readable):
    """What `ipbp.host.pe_memory` reads by."""

    def __init__(self, read: MemoryReader) -> None:
        self._read = read

    def read(self, address: int, size: int) -> bytes:
        (content,) = self._read([(address, size)])
        if content is None:
            fact = f"{size} bytes at {address:#x} cannot be read"
            raise IpbpError("inferior-memory", fact, "Let the program run up to `main`, then patch.")
        return content


def read_process(regions: Sequence[Region], executable: str, read: MemoryReader) -> WindowsProcess:
    """The process. `executable`: the path of its program on this machine, by which `regions` call it, too.

    Errors: `image-unreadable` when that is not there or is another one.
    """
    mapped = tuple(region for region in regions if region.path == executable)
    if not mapped:
        raise IpbpError(
            "image-unreadable",
            f"{executable} is not among the files that the process has mapped",
            "Tell gdb the file that was started (`file PROGRAM`).",
        )
    module = PeModule(0, MappedFile(executable, 0, mapped), read, is_executable=True)
    return WindowsProcess((module,), (), False, read, regions)


def _is_head_of(file: memoryview, memory: bytes) -> bool:
    """Whether a file's headers are those in memory, but for the address that it is linked for ("PE Format", "Optional
    Header"); among them are the time of the link and a sum of the file."""
    at = int.from_bytes(memory[60:64], "little")
    size = int.from_bytes(memory[at + 24 + 60 : at + 24 + 64], "little")
    end = min(size, len(memory))
    if memory[:2] != b"MZ" or at + _BASE + 8 > end or len(file) < end:
        return False
    base = at + _BASE
    return bytes(file[:base]) == memory[:base] and bytes(file[base + 8 : end]) == memory[base + 8 : end]
