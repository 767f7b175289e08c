"""The tables of a relocatable ELF file as columns, checked: what is in here can be indexed without looking again.

An object may be truncated, half written or hostile, so every offset, link and index of it is compared with the
file's real sizes first. lief reads the headers as a second judge. The tables themselves are read as numpy columns
over the file's bytes: a large C++ or Rust object has more sections, symbols and relocations than Python can touch one
by one while a user waits, and more sections (over 65,279, gABI "Sections", SHN_XINDEX) than lief reads. Relocations
of sections that are not loaded, which are most, are checked here and read when somebody asks for them.

Sources: System V gABI chapters 4 and 5 for every rule named here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from io import BytesIO
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ipbp.compression import ZLIB, ZSTD, decompressed, method_of
from ipbp.errors import IpbpError
from ipbp.formats.elf_relocations import edge_kinds
from ipbp.graph.columns import I64, U8, Flags
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows, ragged, words_at

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS, SHT_REL = 1, 2, 3, 4, 7, 8, 9
SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY, SHT_GROUP, SHT_SYMTAB_SHNDX = 14, 15, 16, 17, 18
SHT_RELR, SHT_CREL, SHT_X86_64_UNWIND = 19, 0x40000014, 0x70000001
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS = 0x1, 0x2, 0x4, 0x10, 0x20
SHF_TLS, SHF_COMPRESSED, SHF_EXCLUDE = 0x400, 0x800, 0x80000000
SHF_X86_64_LARGE = 0x10000000
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFF00, 0xFFF1, 0xFFF2, 0xFFFF
SHN_X86_64_LCOMMON = 0xFF02
STT_SECTION, STT_FILE = 3, 4
ET_REL = 1
EM_X86_64, EM_AARCH64 = 62, 183
MACHINES = {EM_X86_64: "x86_64", EM_AARCH64: "aarch64"}
"""`e_machine` -> what graphs and images call it."""
_BITCODE_MAGIC = (b"BC\xc0\xde", b"\xde\xc0\x17\x0b")
_OTHERS = {b"\xcf\xfa\xed\xfe": "Mach-O", b"\x64\x86": "COFF", b"\x64\xaa": "COFF", b"MZ": "PE"}
_TYPES = 2048  # beyond every number that an ABI has given to a relocation
_SIZE_LIMIT = 1 << 40  # of one section; keeps (section, offset) in 64 bits
_JUDGED_SECTIONS = 1024  # headers that lief is shown: it makes an object of each, and takes a microsecond for it


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

    name: Names
    type: I64
    flags: npt.NDArray[np.uint64]
    start: I64
    size: I64
    link: I64
    info: I64
    alignment: I64
    entry_size: I64
    group: Names  # signature of the COMDAT group that it is in, or ""

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True, slots=True)
class ElfSymbols:
    """One row a symbol. `section`: its index, or SHN_UNDEF, or -SHN_ABS, -SHN_COMMON."""

    name: Names
    type: U8
    binding: U8
    visibility: U8
    section: I64
    value: I64
    size: I64

    def __len__(self) -> int:
        return len(self.type)


@dataclass(frozen=True, slots=True)
class ElfRelocations:
    """`section`: the one that holds the field; `offset`: of the field in it."""

    section: I64
    offset: I64
    type: npt.NDArray[np.uint32]
    symbol: I64
    addend: I64


@dataclass(frozen=True, slots=True)
class RelocationTables:
    """Where the relocations are. `holder`: the section whose fields they are of; `start` in the file; `count`. And what
    a glance over all of them tells: `refers`, for each symbol whether one refers to it; `types` that occur."""

    holder: I64
    start: I64
    count: I64
    refers: Flags
    types: I64


@dataclass(frozen=True, slots=True)
class ElfFile:
    """`octets`: the whole file, the same bytes as `content`."""

    path: str
    content: memoryview
    octets: U8
    sections: ElfSections
    symbols: ElfSymbols
    tables: RelocationTables

    @property
    def machine(self) -> str:
        return MACHINES[int.from_bytes(self.content[18:20], "little")]

    def edge_kinds(self, types: npt.NDArray[np.uint32]) -> U8:
        """The `EdgeKind` of each relocation's type; 0 where there is none."""
        return edge_kinds(types, self.machine)

    def relocations_of(self, holders: Flags) -> ElfRelocations:
        """The relocations of the sections that are marked, table by table."""
        tables = np.flatnonzero(holders[self.tables.holder])
        owner, within = ragged(self.tables.count[tables])
        at = self.tables.start[tables][owner] + within * _RELA.itemsize
        info = words_at(self.octets, at + 8)
        return ElfRelocations(
            section=self.tables.holder[tables][owner],
            offset=words_at(self.octets, at).astype(np.int64),
            type=info.astype(np.uint32),
            symbol=(info >> np.uint64(32)).astype(np.int64),
            addend=words_at(self.octets, at + 16).view(np.int64),
        )

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
    """The checked tables of a relocatable file; `content` is anything with the buffer protocol.

    Errors: `object-malformed`, `object-wrong-architecture`, `object-not-relocatable`, `object-lto`.
    """
    view = memoryview(content)
    _check_header(view, path)
    octets = np.frombuffer(view, np.uint8)
    sections = _read_sections(view, octets, path)
    symbol_table = _the_symbol_table(sections, path)
    symbols = _read_symbols(view, octets, sections, symbol_table, path)
    sections = replace(sections, group=_groups(octets, sections, symbols, symbol_table, path))
    tables = _relocation_tables(view, sections, len(symbols), symbol_table, path)
    _refuse_bytecode(sections, symbols, path)
    return ElfFile(path, view, octets, sections, symbols, tables)


def malformed(path: str, fact: str) -> NoReturn:
    raise IpbpError(
        "object-malformed",
        f"{path}: {fact}",
        "The file is damaged or was still being written: build it again.",
    )


def refuse_other_formats(magic: bytes, path: str, code: str) -> None:
    """What the first four bytes of a file say is none of ELF's, where a program is to be patched or linked."""
    other = next((name for start, name in _OTHERS.items() if magic.startswith(start)), "")
    if other:
        raise IpbpError(
            code,
            f"{path}: this is a {other} file, where one of ELF is needed",
            "Look into docs/platforms.md for what is done with files of Mach-O, COFF and PE.",
        )


def _check_header(view: memoryview, path: str) -> None:
    magic = bytes(view[:4])
    if magic in _BITCODE_MAGIC:
        _is_bytecode(path, "LLVM bitcode")
    refuse_other_formats(magic, path, "object-wrong-architecture")
    if len(view) < 64 or magic != b"\x7fELF":
        malformed(path, "not an ELF file")
    if view[4] != 2 or view[5] != 1:
        _wrong_architecture(path, "not 64-bit little-endian")
    machine = int.from_bytes(view[18:20], "little")
    if machine not in MACHINES:
        _wrong_architecture(path, f"ELF machine number {machine}")
    if int.from_bytes(view[16:18], "little") != ET_REL:
        raise IpbpError(
            "object-not-relocatable",
            f"{path}: this is a linked file, not an object file",
            "Give the .o files that the compiler wrote.",
        )
    if int.from_bytes(view[58:60], "little") not in (0, 64):
        malformed(path, "the section headers have another size than 64 bytes")


def _read_sections(view: memoryview, octets: U8, path: str) -> ElfSections:
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
    at, size = int(raw["offset"][names_at]), int(raw["size"][names_at])
    return ElfSections(
        name=names_in(octets, at, size, raw["name"], path),
        type=raw["type"].astype(np.int64),
        flags=raw["flags"].copy(),
        start=raw["offset"].astype(np.int64),
        size=np.where(raw["type"] == 0, 0, raw["size"]).astype(np.int64),
        link=raw["link"].astype(np.int64),
        info=raw["info"].astype(np.int64),
        alignment=alignment.astype(np.int64),
        entry_size=raw["entry"].astype(np.int64),
        group=Names(ByteRows(octets, *(np.zeros(count, dtype=np.int64),) * 2)),
    )


def names_in(octets: U8, start: int, size: int, offsets: npt.NDArray[np.uint32], path: str) -> Names:
    """The NUL-terminated string at each offset of the string table that is `octets[start : start + size]`."""
    if len(offsets) == 0:
        return Names(ByteRows(octets, *(np.zeros(0, dtype=np.int64),) * 2))
    table = octets[start : start + size]
    if size == 0 or table[-1] != 0:
        malformed(path, "a string table does not end with a NUL byte")
    if int(offsets.max()) >= size:
        malformed(path, "a name starts outside its string table")
    ends = np.flatnonzero(table == 0)
    at = offsets.astype(np.int64)
    return Names(ByteRows(octets, at + start, ends[np.searchsorted(ends, at)] - at))


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


def _read_symbols(view: memoryview, octets: U8, sections: ElfSections, table: int, path: str) -> ElfSymbols:
    count = int(sections.size[table]) // 24
    raw = np.frombuffer(view, _SYMBOL, count, int(sections.start[table]))
    strings = int(sections.link[table])
    text_at, text_size = int(sections.start[strings]), int(sections.size[strings])
    home = _symbol_sections(view, sections, table, raw["shndx"].astype(np.int64), path)
    defined = home > 0
    limit = sections.size[np.where(defined, home, 0)].astype(np.uint64)
    if (defined & (raw["value"] > limit)).any():
        malformed(path, "a symbol lies outside its section")
    largest = np.uint64(np.iinfo(np.int64).max)
    room = np.where(defined, limit - np.minimum(raw["value"], limit), largest)
    return ElfSymbols(
        name=names_in(octets, text_at, text_size, raw["name"], path),
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
    # A large tentative definition differs from others in where a linker puts it (psABI, "Special Section Indexes").
    shndx = np.where(shndx == SHN_X86_64_LCOMMON, SHN_COMMON, shndx)
    special = (shndx >= SHN_LORESERVE) & ~wide
    if (special & (shndx != SHN_ABS) & (shndx != SHN_COMMON)).any():
        malformed(path, "a symbol is in a reserved section that its machine does not have")
    if (home[~special] >= len(sections)).any():
        malformed(path, "a symbol is in a section that is not there")
    home[special] = -shndx[special]
    return home


def _groups(octets: U8, sections: ElfSections, symbols: ElfSymbols, table: int, path: str) -> Names:
    """For each section the name of the group that it is a member of, "" for none (gABI, "Section Groups")."""
    groups = np.flatnonzero(sections.type == SHT_GROUP)
    size, signature = sections.size[groups], sections.info[groups]
    if (size < 4).any() or (size % 4).any() or (sections.link[groups] != table).any():
        malformed(path, "a section group is damaged")
    if (signature >= len(symbols)).any():
        malformed(path, "a section group has no name")
    owner, within = ragged(size // 4 - 1)
    words = words_at(octets, sections.start[groups][owner] + 4 * (within + 1))
    member = (words & np.uint64(0xFFFFFFFF)).astype(np.int64)
    if (member >= len(sections)).any():
        malformed(path, "a section group has a member that is not there")
    names, own = symbols.name.rows, sections.name.rows
    start, length = names.start[signature], names.length[signature]
    by_section = (length == 0) & (symbols.type[signature] == STT_SECTION) & (symbols.section[signature] > 0)
    home = np.where(by_section, symbols.section[signature], 0)
    start, length = np.where(by_section, own.start[home], start), np.where(by_section, own.length[home], length)
    of_section = np.zeros((2, len(sections)), dtype=np.int64)
    of_section[:, member] = start[owner], length[owner]
    return Names(ByteRows(octets, *of_section))


def _relocation_tables(
    view: memoryview, sections: ElfSections, symbols: int, table: int, path: str
) -> RelocationTables:
    unreadable = np.isin(sections.type, (SHT_REL, SHT_RELR, SHT_CREL))
    if unreadable.any():
        name = sections.name[int(np.flatnonzero(unreadable)[0])]
        malformed(path, f"the relocations of {name} are not in the form that its machine uses (SHT_RELA)")
    tables = np.flatnonzero((sections.type == SHT_RELA) & (sections.size > 0))
    if (sections.entry_size[tables] != 24).any() or (sections.size[tables] % 24).any():
        malformed(path, "a relocation table's entries are not 24 bytes")
    holder = sections.info[tables]
    if (holder >= len(sections)).any() or (holder == 0).any() or (sections.link[tables] != table).any():
        malformed(path, "a relocation table belongs to a section that is not there")
    start, count = sections.start[tables], sections.size[tables] // 24
    plain = (sections.flags[holder] & np.uint64(SHF_COMPRESSED)) == 0
    limit = np.where(plain, sections.size[holder], _SIZE_LIMIT).astype(np.uint64)
    refers, types, large = np.zeros(symbols, dtype=np.bool_), np.zeros(_TYPES, dtype=np.bool_), set[int]()
    for first, last in _stretches(start, count):
        raw = np.frombuffer(view, _RELA, int(count[first:last].sum()), int(start[first]))
        if int(raw["symbol"].max()) >= symbols:
            malformed(path, "a relocation names a symbol that is not there")
        each = np.cumsum(count[first:last]) - count[first:last]
        if (np.maximum.reduceat(raw["offset"], each) >= limit[first:last]).any():
            malformed(path, "a relocation lies outside its section")
        number = raw["type"]
        refers[raw["symbol"] if number.all() else raw["symbol"][number != 0]] = True
        if int(number.max()) >= len(types):
            large.update(number[number >= len(types)].tolist())
            number = number[number < len(types)]
        types[number] = True
    numbers = np.array([*np.flatnonzero(types).tolist(), *sorted(large)], dtype=np.int64)
    return RelocationTables(holder, start, count, refers, numbers)


def _stretches(start: I64, count: I64) -> list[tuple[int, int]]:
    """Ranges of tables that lie in the file one behind the other, as compilers and linkers write them."""
    breaks = np.flatnonzero(start[1:] != start[:-1] + 24 * count[:-1]) + 1
    edges = [0, *breaks.tolist(), len(start)] if len(start) else []
    return list(pairwise(edges))


def _refuse_bytecode(sections: ElfSections, symbols: ElfSymbols, path: str) -> None:
    # gcc marks an object without machine code by this common symbol (gcc/lto-streamer, -fno-fat-lto-objects).
    if (symbols.name.equal(b"__gnu_lto_slim") | symbols.name.equal(b"__gnu_lto_v1")).any():
        has_code = ((sections.flags & np.uint64(SHF_EXECINSTR)) != 0) & (sections.size > 0)
        if not has_code.any():
            _is_bytecode(path, "GIMPLE bytecode")


def _decompress(stored: memoryview, name: str, path: str) -> bytes:
    try:
        method = method_of(stored)
        if method not in (ZLIB, ZSTD):
            raise IpbpError(
                "object-compression",
                f"{path}: {name} is compressed by method {method}, which ipbp does not know",
                "Build with -gz=zlib or -gz=none.",
            )
        return decompressed(stored)
    except ValueError as error:
        malformed(path, f"the compressed section {name} cannot be decompressed: {error}")


def _wrong_architecture(path: str, found: str) -> NoReturn:
    raise IpbpError(
        "object-wrong-architecture",
        f"{path}: {found}, where an object for x86-64 or little-endian AArch64 is needed",
        "Build for one of these.",
    )


def _is_bytecode(path: str, found: str) -> NoReturn:
    raise IpbpError(
        "object-lto",
        f"{path}: holds {found} for link-time optimisation and no machine code",
        "Build without -flto, or with -ffat-lto-objects.",
    )


def _headers(file: ElfFile, shown: int) -> bytes:
    """A file of the header, `shown` section headers (the last one that of the names) and the names alone."""
    start, names = int.from_bytes(file.content[40:48], "little"), int.from_bytes(file.content[62:64], "little")
    raw = np.frombuffer(file.content, _SECTION, len(file.sections), start)
    names = int(raw["link"][0]) if names == SHN_XINDEX else names
    rows = raw[[*range(shown - 1), names if names >= shown else shown - 1]].copy()
    place = names if names < shown else shown - 1
    at, size = int(raw["offset"][names]), int(raw["size"][names])
    rows["offset"], rows["size"] = 0, 0
    rows["offset"][place], rows["size"][place] = 64 * (shown + 1), size
    header = bytearray(file.content[:64])
    header[40:48] = (64).to_bytes(8, "little")
    header[60:64] = shown.to_bytes(2, "little") + place.to_bytes(2, "little")
    return bytes(header) + rows.tobytes() + bytes(file.content[at : at + size])


def load_lief() -> None:
    """Have it loaded before a user waits for `check_with_lief`."""
    import_module("lief")


def check_with_lief(file: ElfFile) -> None:
    """Refuse what lief cannot read as an object, or reads with another number of sections. It is shown the
    header, the first section headers and their names, all of it where the file has it; not what the sections hold."""
    shown = min(len(file.sections), _JUDGED_SECTIONS)
    import lief  # only here: it takes half a second to load, and an image or a journal is read without it

    options = lief.ELF.ParserConfig()
    for part in ("parse_dyn_symbols", "parse_symtab_symbols", "parse_relocations", "parse_notes", "parse_overlay"):
        setattr(options, part, False)
    options.parse_symbol_versions = False
    lief.logging.disable()
    binary = lief.ELF.parse(BytesIO(_headers(file, shown)), options)
    if binary is None or isinstance(binary, lief.lief_errors):
        malformed(file.path, "lief cannot read this file")
    if len(binary.sections) != shown:
        malformed(file.path, "the section table can be read in two ways")
