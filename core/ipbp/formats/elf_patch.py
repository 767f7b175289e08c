"""The patch as a file: a linked ELF executable at the very addresses where it lies in the inferior.

One file serves everybody: the plugin writes its segments to memory, the debugger loads its symbols and lines,
objdump and readelf show it, a bug report attaches it. Its addresses are final, and yet it is an ET_DYN: an ET_EXEC
lldb would take for the program itself, to be run again. Symbols and debug information are those of
the carried code only.

Sources: System V gABI chapters 4 and 5; a segment's file offset and address are equal modulo the page size.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ipbp.formats.debug_merge import merge_debug
from ipbp.formats.elf_file import MACHINES
from ipbp.formats.elf_symtab import symbol_table
from ipbp.graph.layout import PROTECTIONS, Chunk, LateField, Layout, LinkedImage
from ipbp.graph.unit import Unit
from ipbp.protocol import Segment

_PAGE = 4096
_EHDR_SIZE, _PHDR_SIZE, _SHDR_SIZE = 64, 56, 64
_ET_DYN = 3
_NUMBERS = {name: number for number, name in MACHINES.items()}
_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551
_PF_X, _PF_W, _PF_R = 1, 2, 4
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_NOBITS = 1, 2, 3, 8
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR, _SHF_MERGE_STRINGS = 1, 2, 4, 0x30
_SEGMENT_FLAGS = {"rx": _PF_R | _PF_X, "r": _PF_R, "rw": _PF_R | _PF_W}
_SECTION_FLAGS = {"rx": _SHF_ALLOC | _SHF_EXECINSTR, "r": _SHF_ALLOC, "rw": _SHF_ALLOC | _SHF_WRITE}


@dataclass(frozen=True, slots=True)
class PatchFile:
    """`content`: the whole file. `segments`: what of it goes to memory, by address. `late`: fields of its debug
    information that wait for the place of new thread-local variables, by their offset in the file."""

    content: bytes
    segments: tuple[Segment, ...]
    late: tuple[LateField, ...] = ()


@dataclass(frozen=True, slots=True)
class _Section:
    """A section header with its bytes; `offset` is given when the file is put together, unless it is in a segment."""

    name: str
    type: int
    flags: int
    content: bytes = b""
    address: int = 0
    offset: int = 0
    size: int = 0
    link: int = 0
    info: int = 0
    alignment: int = 1
    entry_size: int = 0


@dataclass(slots=True)
class _Writer:
    """The file while it grows."""

    content: bytearray
    sections: list[_Section] = field(default_factory=list)

    def pad_to(self, remainder: int, modulus: int) -> None:
        self.content += bytes((remainder - len(self.content)) % modulus)

    def append(self, section: _Section) -> None:
        self.pad_to(0, section.alignment)
        self.sections.append(replace(section, offset=len(self.content), size=len(section.content)))
        self.content += section.content


def write_patch(
    path: Path, units: Sequence[Unit], layout: Layout, linked: LinkedImage, machine: str = "", is_plain: bool = False
) -> PatchFile:
    """Write the patch to `path`, whole or not at all. `machine`: of a patch without units. `is_plain`: without debug
    information, which changes nothing of where its segments are.

    Errors: OSError; `debug-too-large`.
    """
    patch = patch_file(units, layout, linked, machine, is_plain)
    half_written = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half_written.touch(mode=0o600)
        half_written.write_bytes(patch.content)
        half_written.replace(path)
    finally:
        half_written.unlink(missing_ok=True)
    return patch


def patch_file(
    units: Sequence[Unit], layout: Layout, linked: LinkedImage, machine: str = "", is_plain: bool = False
) -> PatchFile:
    """The file as bytes. Errors: `debug-too-large`."""
    used = [protection for protection in PROTECTIONS if protection in layout.ends()]
    headers_size = _EHDR_SIZE + _PHDR_SIZE * (len(used) + 1)
    writer = _Writer(bytearray(headers_size), [_Section("", 0, 0, alignment=0)])
    segments, program_headers = [], []
    for protection in used:
        segment, header = _write_segment(writer, protection, layout, linked)
        program_headers.append(header)
        if segment.size:
            segments.append(segment)
    _write_symbols(writer, units, layout)
    late: list[LateField] = []
    for debug in () if is_plain else merge_debug(units, layout):
        flags = debug.flags & _SHF_MERGE_STRINGS
        writer.append(
            _Section(
                debug.name,
                _SHT_PROGBITS,
                flags,
                debug.content,
                alignment=max(debug.alignment, 1),
                entry_size=debug.entry_size,
            )
        )
        late += [replace(row, address=row.address + writer.sections[-1].offset) for row in debug.late]
    section_headers = _write_section_headers(writer)
    program_headers.append(_program_header(_PT_GNU_STACK, _PF_R | _PF_W, 0, 0, 0, 0, 16))
    number = _NUMBERS[machine or units[0].graph.machine]
    header = _file_header(number, len(program_headers), section_headers, len(writer.sections))
    writer.content[:headers_size] = header + b"".join(program_headers)
    return PatchFile(bytes(writer.content), tuple(sorted(segments, key=lambda row: row.address)), tuple(late))


def _write_segment(writer: _Writer, protection: str, layout: Layout, linked: LinkedImage) -> tuple[Segment, bytes]:
    chunks = [chunk for chunk in layout.chunks if chunk.protection == protection]
    start = chunks[0].start
    writer.pad_to(start, _PAGE)
    offset, content = len(writer.content), linked.segments[protection]
    writer.content += content
    for chunk in chunks:
        writer.sections.append(_chunk_section(chunk, offset + min(chunk.start - start, len(content))))
    memory_size = layout.ends()[protection] - start
    header = _program_header(_PT_LOAD, _SEGMENT_FLAGS[protection], offset, start, len(content), memory_size, _PAGE)
    return Segment(start, len(content), offset, protection), header


def _chunk_section(chunk: Chunk, offset: int) -> _Section:
    return _Section(
        chunk.name,
        _SHT_NOBITS if chunk.zeroed else _SHT_PROGBITS,
        _SECTION_FLAGS[chunk.protection],
        address=chunk.start,
        offset=offset,
        size=chunk.size,
        alignment=chunk.alignment,
    )


def _write_symbols(writer: _Writer, units: Sequence[Unit], layout: Layout) -> None:
    index = {section.name: number for number, section in enumerate(writer.sections)}
    table = symbol_table(units, layout, index)
    link = len(writer.sections) + 1
    writer.append(
        _Section(".symtab", _SHT_SYMTAB, 0, table.entries, link=link, info=table.locals, alignment=8, entry_size=24)
    )
    writer.append(_Section(".strtab", _SHT_STRTAB, 0, table.strings))


def _write_section_headers(writer: _Writer) -> int:
    # The offset of the table; the last section holds the names of all.
    names, places = bytearray(b""), []
    for name in [*(section.name for section in writer.sections), ".shstrtab"]:
        places.append(len(names))
        names += name.encode() + b"\0"
    writer.append(_Section(".shstrtab", _SHT_STRTAB, 0, bytes(names)))
    writer.pad_to(0, 8)
    table = len(writer.content)
    for section, name_at in zip(writer.sections, places, strict=True):
        writer.content += struct.pack(
            "<IIQQQQIIQQ",
            name_at,
            section.type,
            section.flags,
            section.address,
            section.offset,
            section.size,
            section.link,
            section.info,
            section.alignment,
            section.entry_size,
        )
    return table


def _program_header(
    kind: int, flags: int, offset: int, address: int, file_size: int, memory_size: int, alignment: int
) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, file_size, memory_size, alignment)


def _file_header(machine: int, program_headers: int, section_headers: int, sections: int) -> bytes:
    magic = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)  # 64-bit, little-endian, version 1, System V
    return magic + struct.pack(
        "<HHIQQQIHHHHHH",
        _ET_DYN,
        machine,
        1,
        0,
        _EHDR_SIZE,
        section_headers,
        0,
        _EHDR_SIZE,
        _PHDR_SIZE,
        program_headers,
        _SHDR_SIZE,
        sections,
        sections - 1,
    )
