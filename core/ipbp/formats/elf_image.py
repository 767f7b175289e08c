"""A linked ELF file, at the place where it is mapped, as a `LoadedImage`.

Symbols come from the static table where there is one, else from that of the separate debug file, else from the
dynamic one with what a small table inside the image adds to it. Which it is matters to nobody behind this file. A
thread-local variable's address is that of its initial value (the TLS segment's place plus its offset), so that every
symbol has an address of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ipbp.formats.elf_aarch64 import are_marks
from ipbp.formats.elf_debug_file import embedded_symbols, has_debug_information, has_symbols, separate_debug_file
from ipbp.formats.elf_dynamic import (
    R_64,
    R_COPY,
    R_GLOB_DAT,
    R_IRELATIVE,
    R_JUMP_SLOT,
    R_RELATIVE,
    DynamicRelocations,
    DynamicTables,
    read_dynamic,
    relocation_columns,
)
from ipbp.formats.elf_file import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_TLS,
    SHF_WRITE,
    SHF_X86_64_LARGE,
    SHT_NOBITS,
    SHT_RELA,
    STT_FILE,
    STT_SECTION,
)
from ipbp.formats.elf_index_cache import IndexCache, at_bias
from ipbp.formats.elf_linked import PT_TLS, RELA, LinkedFile, LinkedSection, let_go, map_file, read_linked
from ipbp.formats.elf_plt import plt_entries
from ipbp.formats.elf_symbol_table import SymbolRows, dynamic_rows, joined, static_rows
from ipbp.graph.image import ImageSection, ImageSymbols, LoadedImage
from ipbp.graph.model import I64, Binding, BlockKind, SymbolType
from ipbp.graph.name_index import NameIndex
from ipbp.graph.rows import is_one_of

_STT_COMMON, _STT_TLS, _STT_IFUNC = 5, 6, 10
_FAR_SIZE = 1 << 30
"""A section of this size, half of what a 32-bit distance spans, is not counted as near."""


def read_image(file: str, bias: int = 0, path: str = "", cache: IndexCache | None = None) -> LoadedImage:
    """The image in `file`, loaded at `bias`; `path` is what users call it (`file` may be below /proc). Its symbols are
    taken from the cache or put there.

    Errors: `image-unreadable`, `image-malformed`, `image-wrong-architecture`.
    """
    linked = read_linked(map_file(file), path or file)
    return build_image(linked, read_dynamic(linked), bias, file, separate_debug_file(linked), cache=cache)


def build_image(
    file: LinkedFile,
    dynamic: DynamicTables,
    bias: int,
    opened: str,
    separate: LinkedFile | None,
    inode: int = 0,
    is_executable: bool = False,
    cache: IndexCache | None = None,
) -> LoadedImage:
    """The image of a file whose headers and dynamic tables were read before. `separate`: its separate debug file."""
    tls = file.segment(PT_TLS)
    tls_start, tls_size = (tls.address, tls.size) if tls else (0, 0)
    if tls and tls.align > 1:  # its end lies at the thread pointer, which is aligned (psABI, TLS variant II)
        tls_size += -(tls.address + tls.size) % tls.align
    symbols = at_bias(_symbols(file, separate, dynamic, tls_start, cache), bias)
    cells = cell_names(file, dynamic, symbols, bias)
    slots: dict[str, list[int]] = {}
    for address, name in cells.items():
        slots.setdefault(name, []).append(address + bias)
    loads, parts = file.loads(), _image_sections(file, bias)
    start = bias + min(row.address for row in loads) // 4096 * 4096
    end = bias + max(row.address + row.size for row in loads)
    near_start, near_end = _near(file, bias) or (start, end)
    return LoadedImage(
        path=file.path,
        file=opened,
        build_id=file.build_id(),
        bias=bias,
        start=start,
        end=end,
        symbols=symbols,
        stubs={address + bias: name for address, name in plt_entries(file, cells).items()},
        slots=slots,
        sections=tuple((row.name, row.start, row.end) for row in parts),
        tls_size=tls_size,
        tls_alignment=tls.align if tls else 1,
        is_pie=file.is_pie,
        tls_start=bias + tls_start if tls else 0,
        parts=parts,
        original=_Original(file, bias, *_own_pointers(file, dynamic)),
        imported=_Imported(dynamic, bias).name_at,
        versions=_versions(dynamic),
        copied={name: bias + place for name, place in _copied(dynamic).items()},
        debug_file=separate.path if separate is not None and not has_debug_information(file) else opened,
        near_start=near_start,
        near_end=near_end,
        inode=inode,
        is_executable=is_executable,
        machine=file.machine,
        hides_globals=_hides_globals(symbols, dynamic),
        leaves_out_folded=file.section(".note.gnu.gold-version") is not None,
    )


def cell_names(file: LinkedFile, dynamic: DynamicTables, symbols: ImageSymbols, bias: int) -> dict[int, str]:
    """Link address of each pointer cell that the loader fills -> the symbol's name. The cell of an indirect function
    of the image itself (IRELATIVE) goes by the name of its resolver."""
    relocations = dynamic.relocations
    if len(relocations.type) == 0:
        relocations = _static_relocations(file)
    found: dict[int, str] = {}
    named = is_one_of(relocations.type, (R_GLOB_DAT, R_JUMP_SLOT)) & (relocations.symbol > 0)
    named &= relocations.symbol < len(dynamic.symbols.name)
    wanted = relocations.symbol[named].tolist()
    name_of = {row: dynamic.known_as(row) for row in set(wanted)}
    names = [name_of[row] for row in wanted]
    found.update(zip(relocations.offset[named].tolist(), names, strict=True))
    for row in np.flatnonzero(relocations.type == R_IRELATIVE).tolist():
        name = _name_at(symbols, int(relocations.addend[row]) + bias)
        if name:
            found[int(relocations.offset[row])] = name
    return found


def _name_at(symbols: ImageSymbols, address: int) -> str:
    rows = range(*np.searchsorted(symbols.address, (address, address + 1)).tolist())
    return next((symbols.name[row] for row in rows if symbols.type[row] == SymbolType.IFUNC), "")


def _static_relocations(file: LinkedFile) -> DynamicRelocations:
    """Those that a static executable applies to itself at start; they name no symbols."""
    parts = [
        np.frombuffer(file.section_content(row)[: row.size // 24 * 24], RELA)
        for row in file.sections
        if row.type == SHT_RELA and row.flags & SHF_ALLOC
    ]
    raw = np.concatenate(parts) if parts else np.empty(0, RELA)
    return relocation_columns(raw, file.machine)


def _versions(dynamic: DynamicTables) -> Mapping[str, tuple[str, ...]]:
    symbols = dynamic.symbols
    names = symbols.name.take(np.flatnonzero((symbols.section == 0) & (symbols.version > 1)))
    return {name: dynamic.wanted_versions(name) for name in names}


def _copied(dynamic: DynamicTables) -> Mapping[str, int]:
    relocations = dynamic.relocations
    rows = np.flatnonzero(relocations.type == R_COPY).tolist()
    return {dynamic.symbols.name[int(relocations.symbol[row])]: int(relocations.offset[row]) for row in rows}


def _own_pointers(file: LinkedFile, dynamic: DynamicTables) -> tuple[I64, I64]:
    """Pointers that the loader makes out of the image's own addresses: (field, target) in link addresses."""
    relocations, symbols = dynamic.relocations, dynamic.symbols
    if len(relocations.type) == 0 and file.is_pie:
        relocations = _static_relocations(file)
    relative = relocations.type == R_RELATIVE
    symbol = np.where(relocations.symbol < len(symbols.name), relocations.symbol, 0)
    value = relocations.addend.copy()
    if len(symbols.name):
        own = (relocations.type == R_64) & (symbols.section[symbol] != 0)
        value[own] += symbols.value[symbol[own]]
        relative = relative | own
    held = [int.from_bytes(file.at(field, 8) or b"", "little") for field in dynamic.packed.tolist()]
    fields = np.concatenate([relocations.offset[relative], dynamic.packed])
    values = np.concatenate([value[relative], np.array(held, dtype=np.int64)])
    order = np.argsort(fields, kind="stable")
    return fields[order], values[order]


def _symbols(
    file: LinkedFile, separate: LinkedFile | None, dynamic: DynamicTables, tls_start: int, cache: IndexCache | None
) -> ImageSymbols:
    """In link addresses."""
    for source in (file, separate):
        if source is not None and has_symbols(source):
            kept = cache.load(source, tls_start) if cache else None
            if kept is None:
                kept = _image_symbols(static_rows(source), tls_start, dynamic.defines_versions, file.machine)
                if cache:
                    cache.keep(source, tls_start, kept)
            return kept
    embedded = embedded_symbols(file)
    rows = dynamic_rows(dynamic)
    if embedded is not None and has_symbols(embedded):
        rows = joined(rows, static_rows(embedded))
    return _image_symbols(rows, tls_start, dynamic.defines_versions, file.machine)


def _image_symbols(rows: SymbolRows, tls_start: int, defines_versions: bool, machine: str) -> ImageSymbols:
    keep = (rows.section != 0) & (rows.type != STT_SECTION) & (rows.type != STT_FILE)
    keep &= rows.name.are_given()
    if machine == "aarch64":
        keep &= ~are_marks(rows.name, rows.type)
    kept = np.flatnonzero(keep)
    address = rows.value[kept] + np.where(rows.type[kept] == _STT_TLS, tls_start, 0)
    # What an image without versions of its own has defined under a library's version, it has copied from there.
    names = rows.name.take(kept).without_versions(of_all=not defines_versions)
    order = np.argsort(address, kind="stable")
    kept, address = kept[order], address[order]
    binding, type_ = rows.binding[kept], rows.type[kept]
    bindings = np.select([binding == 0, binding == 2], [Binding.LOCAL, Binding.WEAK], Binding.GLOBAL)
    types = np.where(np.isin(type_, [int(known) for known in SymbolType]), type_, SymbolType.NONE)
    types[type_ == _STT_COMMON] = SymbolType.OBJECT
    return ImageSymbols(
        name=names.take(order),
        address=address,
        size=rows.size[kept],
        binding=bindings.astype(np.uint8),
        type=types.astype(np.uint8),
        file=rows.file[kept],
        files=rows.files,
        by_name=NameIndex(names.take(order), before=(names, order)),
    )


def _hides_globals(symbols: ImageSymbols, dynamic: DynamicTables) -> bool:
    """Whether the linker wrote global names that it does not export as local ones of their files: mold does, and lld
    where a version script says so. GNU linkers put such names under an STT_FILE without a name."""
    if not symbols.files or "" in symbols.files:
        return False
    shared = is_one_of(symbols.type, (SymbolType.FUNCTION, SymbolType.OBJECT)) & (symbols.binding != Binding.LOCAL)
    return all(symbols.name[int(row)] in dynamic.rows for row in np.flatnonzero(shared))


def _image_sections(file: LinkedFile, bias: int) -> tuple[ImageSection, ...]:
    return tuple(
        ImageSection(row.name, row.address + bias, row.end + bias, _kind(row))
        for row in file.sections
        if row.flags & SHF_ALLOC and row.size
    )


def _near(file: LinkedFile, bias: int) -> tuple[int, int] | None:
    """Load addresses [start, end) of what is not in large sections; None when there are none of those. GNU compilers
    do not flag them in the large model, where nothing is near: there it is the size that tells."""
    rows = [row for row in file.sections if row.flags & SHF_ALLOC and row.size]
    small = [row for row in rows if not row.flags & SHF_X86_64_LARGE and row.size < _FAR_SIZE]
    if len(small) == len(rows) or not small:
        return None
    return bias + min(row.address for row in small) // 4096 * 4096, bias + max(row.end for row in small)


def _kind(section: LinkedSection) -> BlockKind:
    empty = section.type == SHT_NOBITS
    if section.flags & SHF_EXECINSTR:
        return BlockKind.CODE
    if section.flags & SHF_TLS:
        return BlockKind.TLS_BSS if empty else BlockKind.TLS_DATA
    if not section.flags & SHF_WRITE:
        return BlockKind.RODATA
    if section.name.endswith("_array"):
        return BlockKind.INIT
    if section.name.startswith(".data.rel.ro"):
        return BlockKind.RELRO
    return BlockKind.BSS if empty else BlockKind.DATA


@dataclass(frozen=True)
class _Imported:
    """Pointers in data that the loader makes of other images' symbols; found when the first is asked for."""

    dynamic: DynamicTables
    bias: int

    def name_at(self, address: int) -> str:
        return self._names.get(address - self.bias, "")

    @cached_property
    def _names(self) -> dict[int, str]:
        relocations, symbols = self.dynamic.relocations, self.dynamic.symbols
        if len(symbols.name) == 0:
            return {}
        symbol = np.where(relocations.symbol < len(symbols.name), relocations.symbol, 0)
        rows = np.flatnonzero((relocations.type == R_64) & (symbol > 0) & (symbols.section[symbol] == 0))
        name_of = {row: self.dynamic.known_as(row) for row in set(symbol[rows].tolist())}
        pairs = zip(relocations.offset[rows].tolist(), symbol[rows].tolist(), strict=True)
        return {offset: name_of[row] for offset, row in pairs}


_MUCH = 1 << 20
"""Bytes of which it is not likely that somebody asks for them again soon."""


@dataclass(frozen=True, slots=True)
class _Original:
    """Bytes at load addresses as they are before the program's first instruction: what the file has, zeros where it
    says zero-filled, pointers into the image itself relocated. None outside the image. `field`, `value`: link
    addresses of those pointers, ascending, and where they point."""

    file: LinkedFile
    bias: int
    field: I64
    value: I64

    def __call__(self, address: int, size: int) -> bytes | None:
        link = address - self.bias
        for row in self.file.loads():
            if row.address <= link and link + size <= row.address + row.size:
                start, end = link - row.address, min(link - row.address + size, row.file_size)
                stored = bytes(self.file.content[row.offset + start : row.offset + end]) if start < end else b""
                if len(stored) >= _MUCH:
                    let_go(self.file.content, row.offset + start, row.offset + end)
                return self._relocated(link, stored + bytes(size - len(stored)))
        tls = self.file.segment(PT_TLS)
        if tls and tls.address <= link and link + size <= tls.address + tls.size:
            return bytes(size)  # .tbss lies past the segment that holds .tdata
        return None

    def _relocated(self, link: int, content: bytes) -> bytes:
        first, last = np.searchsorted(self.field, (link, link + len(content) - 7)).tolist()
        if first >= last:
            return content
        octets = bytearray(content)
        for field, value in zip(self.field[first:last].tolist(), self.value[first:last].tolist(), strict=True):
            octets[field - link : field - link + 8] = (value + self.bias & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
        return bytes(octets)
