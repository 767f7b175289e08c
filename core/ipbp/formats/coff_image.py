"""A linked PE file (a program or a DLL), at the place where it is loaded, as a `LoadedImage`.

Symbols are those of the COFF symbol table, where the linker wrote one (lld: `/debug:symtab`, `/debug:dwarf`; MinGW's
linkers always): a PDB is not read. `__ImageBase` and the cells of imported functions (`__imp_NAME`) are added to them,
for objects name these. Source: "PE Format" (Microsoft).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np

from ipbp.errors import IpbpError
from ipbp.formats import coff_file as coff
from ipbp.formats.coff_file import CoffSections, CoffSymbols, read_sections, read_symbols
from ipbp.formats.coff_object import FORMAT, WEAK_DEFAULT
from ipbp.formats.elf_file import malformed
from ipbp.formats.translated import image_errors, image_symbols, sizes_to_next, text
from ipbp.graph.columns import I64, U8
from ipbp.graph.image import ImageSection, ImageSymbols, LoadedImage
from ipbp.graph.model import Binding, BlockKind, SymbolType
from ipbp.graph.names import Names
from ipbp.graph.rows import words_at

_HIGHEST = 1 << 47  # of addresses of programs (learn.microsoft.com, "Memory Limits for Windows": 128 TB)
_PE32_PLUS, _HEADER, _IS_DLL, _RELOCS_STRIPPED = 0x20B, 24, 0x2000, 0x1
_BASE_RELOCATIONS, _DIR64 = 5, 10
_SYMBOL, _POINTER = 18, 8
_GRAIN = 1 << 16  # dwAllocationGranularity of GetSystemInfo
IMAGE_NAME, IMPORT_PREFIX = "__ImageBase", "__imp_"


@dataclass(frozen=True, slots=True)
class PeFile:
    """`base`: the address that it is linked for. `size`: of the image in memory. `relocations`: (address from the base,
    size) of the table of base relocations."""

    path: str
    content: memoryview
    octets: U8
    machine: str
    flags: int
    base: int
    size: int
    header_size: int
    relocations: tuple[int, int]
    sections: CoffSections
    symbols: CoffSymbols


def read_image(content: Any, path: str, base: int | None = None) -> LoadedImage:
    """The image of a file's `content`, loaded at `base` (None: where it is linked for).

    Errors: `image-malformed`, `image-wrong-architecture`.
    """
    with image_errors():
        file = _read(content, path)
        bias = 0 if base is None else base - file.base
        parts = tuple(_parts(file, bias))
        cells = _imports(file)
        original = _Original(file, bias)
        start = file.base + bias
        return LoadedImage(
            path=path,
            file=path,
            build_id="",
            bias=bias,
            start=start,
            end=start + file.size,
            symbols=_symbols(file, bias, cells),
            stubs={},
            slots={name: [place + start] for name, place in cells.items()},
            sections=tuple((row.name, row.start, row.end) for row in parts),
            tls_size=0,
            # Above 2 GiB no field of 32 bits holds an address of it, wherever it must be loaded.
            is_pie=not file.flags & _RELOCS_STRIPPED or start >= 1 << 31,
            parts=parts,
            original=original,
            debug_file=path,
            near_start=start,
            near_end=start + file.size,
            is_executable=not file.flags & _IS_DLL,
            machine=file.machine,
            format=FORMAT,
            grain=_GRAIN,
            counts_upwards=True,
        )


def _read(content: Any, path: str) -> PeFile:
    view = memoryview(content)
    octets = np.frombuffer(view, np.uint8)
    at = _number(view, 60, 4)
    is_whole = len(view) >= 64 and at + _HEADER + 112 <= len(view)
    if not is_whole or bytes(view[:2]) != b"MZ" or bytes(view[at : at + 4]) != b"PE\0\0":
        malformed(path, "not a PE file")
    machine, count = _number(view, at + 4, 2), _number(view, at + 6, 2)
    if machine not in coff.MACHINES:
        raise IpbpError(
            "object-wrong-architecture", f"{path}: PE machine number {machine:#x}", "Build for x86-64 or AArch64."
        )
    symbols_at, symbols, optional = _number(view, at + 12, 4), _number(view, at + 16, 4), _number(view, at + 20, 2)
    header = at + _HEADER
    directories = _number(view, header + 108, 4)
    if _number(view, header, 2) != _PE32_PLUS or optional < 112 + 8 * min(directories, 16):
        malformed(path, "the optional header is not that of a 64-bit image")
    if header + optional + 40 * count > len(view):
        malformed(path, f"{count} section headers do not fit in the file")
    if symbols and symbols_at + symbols * _SYMBOL > len(view):
        malformed(path, "the symbol table is not inside the file")
    text_at = symbols_at + symbols * _SYMBOL if symbols else len(view)
    base = _number(view, header + 24, 8)
    if base >= _HIGHEST:
        malformed(path, f"it is linked for {base:#x}, where no program can be")
    sections = read_sections(view, octets, header + optional, count, text_at, path)
    table = read_symbols(view, octets, symbols_at, symbols, _SYMBOL, text_at, path)
    if ((table.section > count) & table.is_record).any():
        malformed(path, "a symbol is in a section that is not there")
    place = header + 112 + 8 * _BASE_RELOCATIONS
    where = (_number(view, place, 4), _number(view, place + 4, 4)) if directories > _BASE_RELOCATIONS else (0, 0)
    return PeFile(
        path=path,
        content=view,
        octets=octets,
        machine=coff.MACHINES[machine],
        flags=_number(view, at + 22, 2),
        base=base,
        size=_number(view, header + 56, 4),
        header_size=min(_number(view, header + 60, 4), len(view)),
        relocations=where,
        sections=sections,
        symbols=table,
    )


def _kinds(sections: CoffSections) -> U8:
    flags, name = sections.flags, sections.name
    return np.select(
        [
            flags & (coff.CNT_CODE | coff.MEM_EXECUTE) != 0,
            name.start_with(b".tls"),
            flags & coff.CNT_UNINITIALIZED != 0,
            flags & coff.MEM_WRITE != 0,
        ],
        [BlockKind.CODE, BlockKind.TLS_DATA, BlockKind.BSS, BlockKind.DATA],
        BlockKind.RODATA,
    ).astype(np.uint8)


def _parts(file: PeFile, bias: int) -> list[ImageSection]:
    rows = file.sections
    first = file.base + bias
    columns = (rows.address.tolist(), rows.virtual_size.tolist(), _kinds(rows).tolist())
    return [
        ImageSection(name, first + address, first + address + size, BlockKind(kind))
        for name, address, size, kind in zip(rows.name, *columns, strict=True)
        if size
    ]


def _symbols(file: PeFile, bias: int, cells: dict[str, int]) -> ImageSymbols:
    rows, sections = file.symbols, file.sections
    home = np.where(rows.is_record, np.maximum(rows.section, 0), 0)
    # What has records behind it stands for a section, but for functions: GNU's assembler gives one to the first.
    is_plain = (rows.extra == 0) | (rows.type & 0xF0 == coff.FUNCTION_TYPE)
    wanted = (home > 0) & rows.name.are_given() & is_plain
    size = sizes_to_next(home, rows.value, wanted, np.append(0, sections.virtual_size))
    address = np.append(0, sections.address)[home] + rows.value + file.base + bias
    kind = np.append(0, _kinds(sections))[home]
    binding = np.where(rows.storage == coff.STATIC, Binding.LOCAL, Binding.GLOBAL)
    types = np.where(kind == BlockKind.CODE, SymbolType.FUNCTION, SymbolType.OBJECT)
    types = np.where(kind == BlockKind.TLS_DATA, SymbolType.TLS, types)
    made = {IMAGE_NAME: 0, **{IMPORT_PREFIX + name: place for name, place in cells.items()}}
    count = len(made)
    # lld writes a weak definition under its default's name, `.weak.NAME.default.FILE`.
    weak = np.flatnonzero(rows.name.start_with(WEAK_DEFAULT)).tolist()
    own = rows.name.with_text({row: rows.name[row].split(".")[2] for row in weak})
    names = Names(own.rows.followed_by(Names.of(made).rows))
    places = np.array(list(made.values()), dtype=np.int64) + file.base + bias
    return image_symbols(
        names,
        np.concatenate([address, places]),
        np.concatenate([size, np.full(count, _POINTER)]),
        np.concatenate([binding, np.full(count, Binding.GLOBAL)]),
        np.concatenate([types, np.full(count, SymbolType.OBJECT)]),
        np.concatenate([np.flatnonzero(wanted), len(rows) + np.arange(count)]),
    )


def _imports(file: PeFile) -> dict[str, int]:
    """Name of each imported function -> its cell, counted from the image's start."""
    import lief  # only here, as in `elf_file`

    lief.logging.disable()
    found = lief.PE.parse(BytesIO(bytes(file.content)))
    if found is None or isinstance(found, lief.lief_errors):
        malformed(file.path, "lief cannot read this file")
    return {text(row.name): row.iat_address for library in found.imports for row in library.entries if row.name}


@dataclass(frozen=True)
class _Original:
    """`LoadedImage.original` of a PE file."""

    file: PeFile
    bias: int

    def __call__(self, address: int, size: int) -> bytes | None:
        file, rows = self.file, self.file.sections
        place = address - self.bias - file.base
        inside = (rows.address <= place) & (place + size <= rows.address + rows.virtual_size)
        if place >= 0 and place + size <= file.header_size:
            return bytes(file.content[place : place + size])
        for row in np.flatnonzero(inside).tolist():
            first, start = int(rows.address[row]), int(rows.offset[row])
            stored = min(int(rows.size[row]), int(rows.virtual_size[row]))
            content = bytes(file.content[start + place - first : start + min(place - first + size, stored)])
            return self._relocated(place, content + bytes(size - len(content)))
        return None

    def _relocated(self, place: int, content: bytes) -> bytes:
        if not self.bias:
            return content
        first, last = np.searchsorted(self._pointers, (place, place + len(content) - _POINTER + 1)).tolist()
        octets = bytearray(content)
        for field in (self._pointers[first:last] - place).tolist():
            value = int.from_bytes(octets[field : field + _POINTER], "little") + self.bias
            octets[field : field + _POINTER] = (value & (1 << 64) - 1).to_bytes(_POINTER, "little")
        return bytes(octets)

    @cached_property
    def _pointers(self) -> I64:
        """Where the loader adds to pointers, counted from the image's start: blocks of one page each ("PE Format", "The
        .reloc Section")."""
        place, left = self.file.relocations
        table = _Original(self.file, 0)(self.file.base + place, left) if left else b""
        if not table:
            return np.empty(0, dtype=np.int64)
        octets, found, at = np.frombuffer(table, np.uint8), [np.empty(0, dtype=np.int64)], 0
        while at + 8 <= len(table):
            word = int(words_at(octets, np.array([at]))[0])
            page, size = word & 0xFFFFFFFF, word >> 32
            if size < 8 or at + size > len(table):
                malformed(self.file.path, "the base relocations are damaged")
            rows = octets[at + 8 : at + 8 + (size - 8) // 2 * 2].view("<u2").astype(np.int64)
            found.append(page + (rows[rows >> 12 == _DIR64] & 0xFFF))
            at += size
        return np.sort(np.concatenate(found))


def _number(view: memoryview, at: int, size: int) -> int:
    return int.from_bytes(view[at : at + size], "little")
