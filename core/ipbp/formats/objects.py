"""An object file of any format that there is a reader for, told by its first bytes."""

from __future__ import annotations

from typing import Any

from ipbp.formats import coff_file, elf_object, macho_file
from ipbp.formats.coff_object import read_object as read_coff
from ipbp.formats.macho_object import read_object as read_macho
from ipbp.graph.model import LinkGraph


def read_any_object(content: Any, path: str) -> LinkGraph:
    """The link graph of a relocatable ELF, Mach-O or COFF file. Errors: those of its format's `read_object`; what is
    none of these is told as a damaged ELF file."""
    start = bytes(memoryview(content)[:32])
    if start[:4] == macho_file.MAGIC or start[:4] in macho_file.FAT_MAGICS:
        return read_macho(content, path)
    if coff_file.is_coff(start):
        return read_coff(content, path)
    return elf_object.read_object(content, path)
