"""The tables of a relocatable ELF file as columns, checked: what is in here can be indexed without looking again.

An object may be truncated, half written or hostile, so every offset, link and index of it is compared with the
file's real sizes first. lief reads the header as a second judge. The tables themselves are read as numpy columns
over the file's bytes: a large C++ or Rust object has more sections and relocations than Python can touch one by one
while a user waits, and more sections (over 65,279, gABI "Sections", SHN_XINDEX) than lief reads.

Sources: System V gABI chapters 4 and 5 for every rule named here.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn

import lief
import numpy as np
import numpy.typing as npt

from ipbp.errors import IpbpError
from ipbp.graph.model import I64, U8

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS, SHT_REL = 1, 2, 3, 4, 7, 8, 9
SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY, SHT_GROUP, SHT_SYMTAB_SHNDX = 14, 15, 16, 17, 18
SHT_RELR, SHT_CREL, SHT_X86_64_UNWIND = 19, 0x40000014, 0x70000001
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS = 0x1, 0x2, 0x4, 0x10, 0x20
SHF_TLS, SHF_COMPRESSED, SHF_EXCLUDE = 0x400, 0x800, 0x80000000
SHF_X86_64_LARGE = 0x10000000
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFF00, 0xFFF1, 0xFFF2, 0xFFFF
STT_SECTION, STT_FILE = 3, 4
ET_REL, EM_X86_64 = 1, 62
_BITCODE_MAGIC = (b"BC\xc0\xde", b"\xde\xc0\x17\x0b")
_SIZE_LIMIT = 1 << 40  # of one section; keeps (section, offset) in 64 bits


def _record(**fields: str) -> np.dtype[np.void]:
    return np.dtype(list(fields.items()))


# Elf64_Shdr, Elf64_Sym and Elf64_Rela; the two halves of r_info stand in this order in a little-endian file.
_SECTION = _record(
    name="<u4",
    type="<u4",
    flags="<u8",
    addr="<u8",
    offset="<u8",
    size="<u8",
    link="<u4",
    info="<u4",
    align="<u8",
    entry="<u8",
)
_SYMBOL = _record(name="<u4", info="u1", other="u1", shndx="<u2", value="<u8", size="<u8")
_RELA = _record(offset="<u8", type="<u4", symbol="<u4", addend="<i8")


@dataclass(frozen=True, slots=True)
class ElfSections:
    """One row a section, row 0 being the gABI's empty one. `start`: where its bytes are in the file."""

    name: list[str]
    type: I64
    flags: npt.NDArray[np.uint64]
    start: I64
    size: I64
    link: I64
    info: I64
    alignment: I64
    entry_size: I64
    group: list[str]  # signature of the COMDAT group that it is in, or ""

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True, slots=True)
class ElfSymbols:
    """One row a symbol. `section`: its index, or SHN_UNDEF, or -SHN_ABS, -SHN_COMMON."""

    name: list[str]
    type: U8
    binding: U8
    visibility: U8
    section: I64
    value: I64
    size: I64


@dataclass(frozen=True, slots=True)
class ElfRelocations:
    """All relocations of the file. `section`: the one that holds the field; `offset`: of the field in it."""

    section: I64
    offset: I64
    type: npt.NDArray[np.uint32]
    symbol: I64
    addend: I64


@dataclass(frozen=True, slots=True)
class ElfFile:
    path: str
    content: memoryview
    sections: ElfSections
    symbols: ElfSymbols
    relocations: ElfRelocations

    def section_content(self, section: int) -> memoryview:
        """The bytes of a section, decompressed; empty for SHT_NOBITS."""
        rows = self.sections
        if rows.type[section] == SHT_NOBITS:
            return memoryview(b"")
        start = int(rows.start[section])
        stored = self.content[start : start + int(rows.size[section])]
        if int(rows.flags[section]) & SHF_COMPRESSED:
            return memoryview(_decompress(stored, rows.name[section], self.path))
        return stored


def read_elf(content: bytes | memoryview | Any, path: str) -> ElfFile:
    """The checked tables of an x86-64 relocatable file; `content` is anything with the buffer protocol.

    Errors: `object-malformed`, `object-wrong-architecture`, `object-not-relocatable`, `object-lto`.
    """
    view = memoryview(content)
    _check_header(view, path)
    sections = _read_sections(view, path)
    symbol_table = _the_symbol_table(sections, path)
    symbols = _read_symbols(view, sections, symbol_table, path)
    _name_groups(view, sections, symbols, symbol_table, path)
    relocations = _read_relocations(view, sections, len(symbols.name), symbol_table, path)
    _refuse_bytecode(sections, symbols, path)
    return ElfFile(path, view, sections, symbols, relocations)


def malformed(path: str, fact: str) -> NoReturn:
    raise IpbpError(
        "object-malformed",
        f"{path}: {fact}",
        "The file is damaged or was still being written: build it again.",
    )


def _check_header(view: memoryview, path: str) -> None:
    magic = bytes(view[:4])
    if magic in _BITCODE_MAGIC:
        _is_bytecode(path, "LLVM bitcode")
    if len(view) < 64 or magic != b"\x7fELF":
        malformed(path, "not an ELF file")
    if view[4] != 2 or view[5] != 1:
        _wrong_architecture(path, "not 64-bit little-endian")
    machine = int.from_bytes(view[18:20], "little")
    if machine != EM_X86_64:
        _wrong_architecture(path, f"ELF machine number {machine}")
    if int.from_bytes(view[16:18], "little") != ET_REL:
        raise IpbpError(
            "object-not-relocatable",
            f"{path}: this is a linked file, not an object file",
            "Give the .o files that the compiler wrote.",
        )
    if int.from_bytes(view[58:60], "little") not in (0, 64):
        malformed(path, "the section headers have another size than 64 bytes")


def _read_sections(view: memoryview, path: str) -> ElfSections:
    start = int.from_bytes(view[40:48], "little")
    count = int.from_bytes(view[60:62], "little")
    names_at = int.from_bytes(view[62:64], "little")
    if start == 0 or start > len(view) - 64:
        malformed(path, "the section header table is outside the file")
    first = np.frombuffer(view, _SECTION, 1, start)[0]
    count = count or int(first["size"])
    names_at = int(first["link"]) if names_at == SHN_XINDEX else names_at
    if count == 0 or count > (len(view) - start) // 64:
        malformed(path, f"{count} section headers do not fit in the file")
    raw = np.frombuffer(view, _SECTION, count, start)
    has_bytes = (raw["type"] != SHT_NOBITS) & (raw["type"] != 0)
    length = np.uint64(len(view))
    outside = has_bytes & ((raw["offset"] > length) | (raw["size"] > length - np.minimum(raw["offset"], length)))
    if outside.any():
        malformed(path, f"section {int(np.flatnonzero(outside)[0])} is not inside the file")
    if (raw["size"][1:] >= _SIZE_LIMIT).any():
        malformed(path, "a section is larger than memory")
    alignment = np.maximum(raw["align"], 1)
    if ((alignment & (alignment - np.uint64(1))) != 0).any() or (alignment > 1 << 31).any():
        malformed(path, "an alignment is not a power of two")
    if (raw["link"][1:] >= count).any() or names_at >= count or raw["type"][names_at] != SHT_STRTAB:
        malformed(path, "a section links to one that is not there")
    strings = view[int(raw["offset"][names_at]) :][: int(raw["size"][names_at])]
    return ElfSections(
        name=strings_at(strings, raw["name"], path),
        type=raw["type"].astype(np.int64),
        flags=raw["flags"].copy(),
        start=raw["offset"].astype(np.int64),
        size=np.where(raw["type"] == 0, 0, raw["size"]).astype(np.int64),
        link=raw["link"].astype(np.int64),
        info=raw["info"].astype(np.int64),
        alignment=alignment.astype(np.int64),
        entry_size=raw["entry"].astype(np.int64),
        group=[""] * count,
    )


def strings_at(table: memoryview, offsets: npt.NDArray[np.uint32], path: str) -> list[str]:
    """The NUL-terminated string at each offset of a string table. Bytes that are not UTF-8 survive as surrogates."""
    if len(offsets) == 0:
        return []
    if len(table) == 0 or table[-1] != 0:
        malformed(path, "a string table does not end with a NUL byte")
    if int(offsets.max()) >= len(table):
        malformed(path, "a name starts outside its string table")
    octets = np.frombuffer(table, np.uint8)
    ends = np.flatnonzero(octets == 0)
    stops = ends[np.searchsorted(ends, offsets)]
    spans = zip(offsets.tolist(), stops.tolist(), strict=True)
    if bool((octets < 128).all()):
        text = bytes(table).decode("ascii")
        return [text[a:b] for a, b in spans]
    whole = bytes(table)
    return [whole[a:b].decode("utf-8", "surrogateescape") for a, b in spans]


def _the_symbol_table(sections: ElfSections, path: str) -> int:
    tables = np.flatnonzero(sections.type == SHT_SYMTAB)
    if len(tables) != 1:
        malformed(path, f"{len(tables)} symbol tables, where there must be one")
    table = int(tables[0])
    if sections.entry_size[table] != 24 or sections.size[table] % 24:
        malformed(path, "the symbol table's entries are not 24 bytes")
    if sections.type[sections.link[table]] != SHT_STRTAB:
        malformed(path, "the symbol table has no string table")
    return table


def _read_symbols(view: memoryview, sections: ElfSections, table: int, path: str) -> ElfSymbols:
    count = int(sections.size[table]) // 24
    raw = np.frombuffer(view, _SYMBOL, count, int(sections.start[table]))
    strings = int(sections.link[table])
    text = view[int(sections.start[strings]) :][: int(sections.size[strings])]
    home = _symbol_sections(view, sections, table, raw["shndx"].astype(np.int64), path)
    defined = home > 0
    limit = sections.size[np.where(defined, home, 0)].astype(np.uint64)
    if (defined & (raw["value"] > limit)).any():
        malformed(path, "a symbol lies outside its section")
    largest = np.uint64(np.iinfo(np.int64).max)
    room = np.where(defined, limit - np.minimum(raw["value"], limit), largest)
    return ElfSymbols(
        name=strings_at(text, raw["name"], path),
        type=(raw["info"] & 0xF).astype(np.uint8),
        binding=(raw["info"] >> 4).astype(np.uint8),
        visibility=(raw["other"] & 3).astype(np.uint8),
        section=home,
        value=raw["value"].astype(np.int64),
        size=np.minimum(raw["size"], room).astype(np.int64),
    )


def _symbol_sections(view: memoryview, sections: ElfSections, table: int, shndx: I64, path: str) -> I64:
    wide = shndx == SHN_XINDEX
    home = shndx.copy()
    if wide.any():
        extended = np.flatnonzero((sections.type == SHT_SYMTAB_SHNDX) & (sections.link == table))
        if len(extended) != 1 or sections.size[extended[0]] < 4 * len(shndx):
            malformed(path, "the table of wide section indices is missing or too short")
        indices = np.frombuffer(view, np.dtype("<u4"), len(shndx), int(sections.start[extended[0]]))
        home[wide] = indices[wide]
    special = (shndx >= SHN_LORESERVE) & ~wide
    if (special & (shndx != SHN_ABS) & (shndx != SHN_COMMON)).any():
        malformed(path, "a symbol is in a reserved section that x86-64 small-model code does not have")
    if (home[~special] >= len(sections)).any():
        malformed(path, "a symbol is in a section that is not there")
    home[special] = -shndx[special]
    return home


def _name_groups(view: memoryview, sections: ElfSections, symbols: ElfSymbols, table: int, path: str) -> None:
    for group in np.flatnonzero(sections.type == SHT_GROUP).tolist():
        size, signature = int(sections.size[group]), int(sections.info[group])
        if size < 4 or size % 4 or sections.link[group] != table or signature >= len(symbols.name):
            malformed(path, "a section group is damaged")
        members = np.frombuffer(view, np.dtype("<u4"), size // 4, int(sections.start[group]))[1:]
        if (members >= len(sections)).any():
            malformed(path, "a section group has a member that is not there")
        name = symbols.name[signature]
        if not name and symbols.type[signature] == STT_SECTION:
            name = sections.name[int(symbols.section[signature])]
        for member in members.tolist():
            sections.group[member] = name


def _read_relocations(view: memoryview, sections: ElfSections, symbols: int, table: int, path: str) -> ElfRelocations:
    unreadable = np.isin(sections.type, (SHT_REL, SHT_RELR, SHT_CREL))
    if unreadable.any():
        name = sections.name[int(np.flatnonzero(unreadable)[0])]
        malformed(path, f"the relocations of {name} are not in the form that x86-64 uses (SHT_RELA)")
    tables = np.flatnonzero((sections.type == SHT_RELA) & (sections.size > 0))
    if (sections.entry_size[tables] != 24).any() or (sections.size[tables] % 24).any():
        malformed(path, "a relocation table's entries are not 24 bytes")
    targets = sections.info[tables]
    if (targets >= len(sections)).any() or (targets == 0).any() or (sections.link[tables] != table).any():
        malformed(path, "a relocation table belongs to a section that is not there")
    counts = sections.size[tables] // 24
    starts = sections.start[tables].tolist()
    parts = [np.frombuffer(view, _RELA, n, at) for n, at in zip(counts.tolist(), starts, strict=True)]
    raw = np.concatenate(parts) if parts else np.empty(0, _RELA)
    section = np.repeat(targets, counts)
    if (raw["symbol"] >= symbols).any():
        malformed(path, "a relocation names a symbol that is not there")
    plain = (sections.flags[section] & np.uint64(SHF_COMPRESSED)) == 0
    if (plain & (raw["offset"] >= sections.size[section].astype(np.uint64))).any() or (raw["offset"] >= 1 << 40).any():
        malformed(path, "a relocation lies outside its section")
    return ElfRelocations(
        section=section,
        offset=raw["offset"].astype(np.int64),
        type=raw["type"].copy(),
        symbol=raw["symbol"].astype(np.int64),
        addend=raw["addend"].copy(),
    )


def _refuse_bytecode(sections: ElfSections, symbols: ElfSymbols, path: str) -> None:
    # gcc marks an object without machine code by this common symbol (gcc/lto-streamer, -fno-fat-lto-objects).
    if "__gnu_lto_slim" in symbols.name or "__gnu_lto_v1" in symbols.name:
        has_code = ((sections.flags & np.uint64(SHF_EXECINSTR)) != 0) & (sections.size > 0)
        if not has_code.any():
            _is_bytecode(path, "GIMPLE bytecode")


def _decompress(stored: memoryview, name: str, path: str) -> bytes:
    """gABI "Compressed sections": Elf64_Chdr, then the stream."""
    if len(stored) < 24:
        malformed(path, f"the compressed section {name} is too short")
    method, size = int.from_bytes(stored[:4], "little"), int.from_bytes(stored[8:16], "little")
    if method != 1:
        raise IpbpError(
            "object-compression",
            f"{path}: {name} is compressed by method {method} (2 is zstd), which this Python cannot undo",
            "Build with -gz=zlib or -gz=none.",
        )
    # Deflate cannot grow data by more than 1032 times: a larger promise is a lie and would only eat memory.
    if size > 1032 * len(stored):
        malformed(path, f"the compressed section {name} promises more than it can hold")
    stream = zlib.decompressobj()
    try:
        whole = stream.decompress(stored[24:], size + 1)
    except zlib.error:
        malformed(path, f"the compressed section {name} cannot be decompressed")
    if len(whole) != size:
        malformed(path, f"the compressed section {name} is not as long as it says")
    return whole


def _wrong_architecture(path: str, found: str) -> NoReturn:
    raise IpbpError(
        "object-wrong-architecture",
        f"{path}: {found}, where an x86-64 object is needed",
        "Build for x86-64.",
    )


def _is_bytecode(path: str, found: str) -> NoReturn:
    raise IpbpError(
        "object-lto",
        f"{path}: holds {found} for link-time optimisation and no machine code",
        "Build without -flto, or with -ffat-lto-objects.",
    )


def check_with_lief(file: ElfFile) -> None:
    """Refuse what lief cannot read as an x86-64 object, or reads with another number of sections."""
    options = lief.ELF.ParserConfig()
    for part in ("parse_dyn_symbols", "parse_symtab_symbols", "parse_relocations", "parse_notes", "parse_overlay"):
        setattr(options, part, False)
    options.parse_symbol_versions = False
    lief.logging.disable()
    binary = lief.ELF.parse(BytesIO(file.content), options)
    if binary is None or isinstance(binary, lief.lief_errors):
        malformed(file.path, "lief cannot read this file")
    # Beyond SHN_LORESERVE sections the count stands in section 0, which lief does not look at.
    if len(file.sections) < SHN_LORESERVE and len(binary.sections) != len(file.sections):
        malformed(file.path, "the section table can be read in two ways")
