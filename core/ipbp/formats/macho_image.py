"""A linked Mach-O file (a program, a library or a bundle), at the place where it is loaded, as a `LoadedImage`.

Symbols and sections come from the same tables as an object's. Cells and stubs are those that the table of indirect
symbols names. What dyld writes (rebases and bindings, as opcodes or as chains in the data) lief decodes, once somebody
asks for the image's initial content.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np

from ipbp.errors import IpbpError
from ipbp.formats import macho_file as macho
from ipbp.formats.elf_blocks import NOT_PLACED
from ipbp.formats.macho_file import MachoFile, read_macho
from ipbp.formats.macho_object import placement_of
from ipbp.formats.translated import image_errors, image_symbols, sizes_to_next, text
from ipbp.graph.columns import I64
from ipbp.graph.image import ImageSection, ImageSymbols, LoadedImage
from ipbp.graph.model import Binding, BlockKind, SymbolType
from ipbp.graph.rows import is_one_of

_LOCAL_OR_ABSOLUTE = 0xC0000000  # INDIRECT_SYMBOL_LOCAL, INDIRECT_SYMBOL_ABS
_CELLS = (macho.S_NON_LAZY_SYMBOL_POINTERS, macho.S_LAZY_SYMBOL_POINTERS)
_POINTER = 8


def read_image(content: Any, path: str, bias: int = 0) -> LoadedImage:
    """The image of a file's `content`, loaded `bias` above the addresses in it.

    Errors: `image-malformed`, `image-wrong-architecture`.
    """
    with image_errors():
        file = read_macho(content, path)
        if file.kind not in (macho.MH_EXECUTE, macho.MH_DYLIB, macho.MH_BUNDLE):
            raise IpbpError("object-malformed", f"{path}: not a linked file", "Give the program or library.")
        loaded = [row for row in file.segments if row.protection]
        if not loaded:
            raise IpbpError("object-malformed", f"{path}: nothing in it is loaded", "Build it again.")
        return _image(file, bias, min(row.address for row in loaded), max(row.address + row.size for row in loaded))


def _image(file: MachoFile, bias: int, start: int, end: int) -> LoadedImage:
    parts = tuple(_parts(file, bias))
    original = _Original(file, bias)
    cells = dict(_indirect_symbols(file, _CELLS))
    slots: dict[str, list[int]] = {}
    for address, name in cells.items():
        slots.setdefault(name, []).append(address + bias)
    return LoadedImage(
        path=file.path,
        file=file.path,
        build_id=file.uuid,
        bias=bias,
        start=start + bias,
        end=end + bias,
        symbols=_symbols(file, bias),
        stubs={address + bias: name for address, name in _indirect_symbols(file, (macho.S_SYMBOL_STUBS,))},
        slots=slots,
        sections=tuple((row.name, row.start, row.end) for row in parts),
        tls_size=0,
        is_pie=file.kind != macho.MH_EXECUTE or bool(file.flags & macho.MH_PIE),
        parts=parts,
        original=original,
        imported=original.imported,
        debug_file=file.path,
        near_start=start + bias,
        near_end=end + bias,
        is_executable=file.kind == macho.MH_EXECUTE,
        machine=file.machine,
        format="macho",
    )


def _parts(file: MachoFile, bias: int) -> Iterator[ImageSection]:
    rows = file.sections
    columns = (rows.address.tolist(), rows.size.tolist(), placement_of(rows)[1:].tolist())
    for name, address, size, kind in zip(rows.name, *columns, strict=True):
        if size:
            shown = BlockKind.RODATA if kind == NOT_PLACED else BlockKind(kind)
            yield ImageSection(name, address + bias, address + bias + size, shown)


def _symbols(file: MachoFile, bias: int) -> ImageSymbols:
    rows, sections = file.symbols, file.sections
    wanted = (rows.section > 0) & rows.name.are_given() & rows.in_place
    offset = rows.value - np.append(0, sections.address)[rows.section]
    size = sizes_to_next(rows.section, offset, wanted, np.append(0, sections.size))
    weak = rows.desc & macho.N_WEAK_DEF != 0
    binding = np.where(rows.is_external, np.where(weak, Binding.WEAK, Binding.GLOBAL), Binding.LOCAL)
    # A linker makes what is hidden local, but says so.
    binding = np.where(rows.is_hidden & ~rows.is_external, Binding.GLOBAL, binding)
    kind = placement_of(sections)[rows.section]
    types = np.where(kind == BlockKind.CODE, SymbolType.FUNCTION, SymbolType.OBJECT)
    types = np.where(is_one_of(kind, (BlockKind.TLS_DATA, BlockKind.TLS_BSS)), SymbolType.TLS, types)
    return image_symbols(rows.name, rows.value + bias, size, binding, types, np.flatnonzero(wanted))


def _indirect_symbols(file: MachoFile, kinds: tuple[int, ...]) -> Iterator[tuple[int, str]]:
    """(link address, name) of the cells or stubs in sections of these kinds."""
    rows = file.sections
    for section in np.flatnonzero(np.isin(rows.kind, kinds)).tolist():
        step = int(rows.reserved2[section]) if rows.kind[section] == macho.S_SYMBOL_STUBS else _POINTER
        first, count = int(rows.reserved1[section]), int(rows.size[section]) // max(step, 1)
        symbols: I64 = file.indirect[first : first + count]
        named = np.flatnonzero((symbols & _LOCAL_OR_ABSOLUTE == 0) & (symbols < len(file.symbols)))
        for row in named.tolist():
            name = file.symbols.name[int(symbols[row])]
            if name:
                yield int(rows.address[section]) + row * step, name


@dataclass(frozen=True)
class _Original:
    """`LoadedImage.original` and `.imported` of a Mach-O file."""

    file: MachoFile
    bias: int

    def __call__(self, address: int, size: int) -> bytes | None:
        link = address - self.bias
        for row in self.file.segments:
            if row.protection and row.address <= link and link + size <= row.address + row.size:
                start, end = link - row.address, min(link - row.address + size, row.file_size)
                stored = bytes(self.file.content[row.offset + start : row.offset + end]) if start < end else b""
                return self._relocated(link, stored + bytes(size - len(stored)))
        return None

    def imported(self, address: int) -> str:
        return self._written[2].get(address - self.bias, "")

    def _relocated(self, link: int, content: bytes) -> bytes:
        field, value, _names = self._written
        first, last = np.searchsorted(field, (link, link + len(content) - _POINTER + 1)).tolist()
        octets = bytearray(content)
        for place, target in zip(field[first:last].tolist(), value[first:last].tolist(), strict=True):
            octets[place - link : place - link + _POINTER] = (target + self.bias & (1 << 64) - 1).to_bytes(8, "little")
        return bytes(octets)

    @cached_property
    def _written(self) -> tuple[I64, I64, dict[int, str]]:
        """Link addresses of the pointers into the image itself, ascending, and where they lead; and link address of
        each pointer to what another image has, with its name."""
        import lief  # only here, as in `elf_file`

        lief.logging.disable()
        found = lief.MachO.parse(BytesIO(bytes(self.file.content)))
        if found is None or isinstance(found, lief.lief_errors):
            none = np.empty(0, dtype=np.int64)
            return none, none, {}
        binary: Any = found.at(0)
        rows: dict[int, int] = {}
        for row in binary.relocations:
            if isinstance(row, lief.MachO.RelocationFixup):
                rows[row.address] = row.target
            elif isinstance(row, lief.MachO.RelocationDyld):
                held = bytes(binary.get_content_from_virtual_address(row.address, _POINTER))
                rows[row.address] = int.from_bytes(held, "little")
        bound = [row for row in binary.bindings if row.has_symbol]
        names = {row.address: text(row.symbol.name).removeprefix("_") for row in bound}
        places = np.array(sorted(rows), dtype=np.int64)
        # Unsigned: C++ marks names of types by the highest bit of the pointer to them.
        values = np.array([rows[place] for place in places.tolist()], dtype=np.uint64)
        return places, values.view(np.int64), names
