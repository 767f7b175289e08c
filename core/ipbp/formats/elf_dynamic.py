"""What the dynamic loader knows of an image: its dynamic symbols with versions, relocations and needs.

Found through PT_DYNAMIC alone, as ld.so does (gABI, "Dynamic Section"), so a file without section headers and an
image that is only in memory are read the same way. Columns; a row of `symbols` is a symbol's index in the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ipbp.formats import elf_aarch64
from ipbp.formats.elf_linked import PT_DYNAMIC, RELA, SYMBOL, LinkedFile, malformed, names_at, names_of
from ipbp.graph.model import I64, U8
from ipbp.graph.name_index import NameIndex
from ipbp.graph.names import Names

DT_NEEDED, DT_PLTRELSZ, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_STRSZ = 1, 2, 4, 5, 6, 7, 8, 10
DT_RELRSZ, DT_RELR = 35, 36
DT_SONAME, DT_DEBUG, DT_JMPREL, DT_GNU_HASH = 14, 21, 23, 0x6FFFFEF5
DT_SYMBOLIC, DT_FLAGS, DF_SYMBOLIC = 16, 30, 2
DT_VERSYM, DT_VERDEF, DT_VERNEED = 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE
R_64, R_COPY, R_GLOB_DAT, R_JUMP_SLOT, R_RELATIVE, R_IRELATIVE = 1, 5, 6, 7, 8, 37
STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE = 1, 2, 10
_ADDRESSES = frozenset((DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_JMPREL, DT_GNU_HASH, DT_VERSYM, DT_RELR))
_SHARED = (STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE)
_EXPORTED = (0, 3)  # STV_DEFAULT, STV_PROTECTED
_ADDRESSES_OF_VERSIONS = frozenset((DT_VERDEF, DT_VERNEED))


@dataclass(frozen=True, slots=True)
class DynamicSymbols:
    """`section`: 0 for undefined. `value`: link address (an offset in the TLS block for TLS). `version`: index of
    its version, 0 and 1 for none; `hidden`: not the default version (`name@VERSION` with one `@`)."""

    name: Names
    type: U8
    binding: U8
    visibility: U8
    section: I64
    value: I64
    size: I64
    version: I64
    hidden: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DynamicRelocations:
    """`offset`: link address of the field; `symbol`: row of the dynamic symbols."""

    offset: I64
    type: I64
    symbol: I64
    addend: I64


@dataclass(frozen=True)
class DynamicTables:
    """`is_symbolic`: linked with -Bsymbolic, so that the library's own definitions come before everybody else's."""

    symbols: DynamicSymbols
    relocations: DynamicRelocations
    needed: tuple[str, ...]
    soname: str
    versions: dict[int, str]
    is_symbolic: bool = False
    defines_versions: bool = False
    packed: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Link addresses of pointers into the image that hold their target's link address in the file (DT_RELR)."""

    @cached_property
    def rows(self) -> NameIndex:
        """Name -> rows of the symbol table."""
        return NameIndex(self.symbols.name)

    def definition(self, name: str, version: str = "") -> int | None:
        """The row that a reference to this version binds to, without one to the default version (glibc's
        do-lookup.h): defined and not local. A definition without a version serves every reference."""
        symbols = self.symbols
        for row in self.rows.get(name, ()):
            visible = symbols.binding[row] in _SHARED and symbols.visibility[row] in _EXPORTED
            if not visible or symbols.section[row] == 0:
                continue
            own = self.version(row)
            if (version and own == version) or (not symbols.hidden[row] and (not version or not own)):
                return row
        return None

    def wanted_versions(self, name: str) -> tuple[str, ...]:
        """The versions that the image's own references to `name` ask for, "" for none among them: one, unless it says
        which (.symver)."""
        rows = (row for row in self.rows.get(name, ()) if self.symbols.section[row] == 0)
        return tuple(dict.fromkeys(self.version(row) for row in rows))

    def exports(self, name: str) -> bool:
        """Whether the image defines `name`, or `name@VERSION`, for others, and not as protected."""
        known = self._exports.get(name)
        if known is None:
            known = self._exports[name] = self._is_exported(name)
        return known

    @cached_property
    def _exports(self) -> dict[str, bool]:
        """What was asked for before: the names of a unit are those of its next version."""
        return {}

    def _is_exported(self, name: str) -> bool:
        symbols = self.symbols
        base, _, version = name.partition("@")
        return any(
            symbols.section[row] != 0 and symbols.binding[row] in _SHARED and symbols.visibility[row] == 0
            for row in self.rows.get(base, ())
            if version in ("", self.version(row))
        )

    def known_as(self, row: int) -> str:
        """What the image's objects call this symbol: `name@VERSION` (.symver) for a definition that is not the default
        one, and where the image asks for several versions of a name."""
        name, version = self.symbols.name[row], self.version(row)
        is_one_of_several = self.symbols.section[row] == 0 and len(self.wanted_versions(name)) > 1
        return f"{name}@{version}" if version and (self.symbols.hidden[row] or is_one_of_several) else name

    def version(self, row: int) -> str:
        """The version's name, "" for none. Index 1 is the image itself and no version (LSB core, "Symbol
        Versioning")."""
        index = int(self.symbols.version[row])
        return self.versions.get(index, "") if index > 1 else ""


_NOTHING = DynamicTables(
    DynamicSymbols(Names.of(()), *(np.empty(0, np.uint8),) * 3, *(np.empty(0, np.int64),) * 4, np.empty(0, np.bool_)),
    DynamicRelocations(*(np.empty(0, np.int64),) * 4),
    (),
    "",
    {},
)


def read_dynamic(file: LinkedFile, relocated_by: int = 0) -> DynamicTables:
    """The dynamic tables; empty ones for a static executable.

    `relocated_by`: the bias when the content was read back from memory, where glibc has already added it to the
    addresses in the dynamic section. Errors: `image-malformed`.
    """
    entries = dynamic_entries(file)
    if not entries:
        return _NOTHING
    where = {tag: value for tag, value in entries if tag in _ADDRESSES | _ADDRESSES_OF_VERSIONS}
    if relocated_by:
        where = {tag: value - relocated_by if value >= relocated_by else value for tag, value in where.items()}
    sizes = dict(entries)
    if DT_STRTAB not in where or DT_SYMTAB not in where:
        return _NOTHING
    strings = _part(file, where[DT_STRTAB], sizes.get(DT_STRSZ, 0), "string table")
    relocations = _relocations(file, where, sizes)
    symbols = _symbols(file, where, strings, used=int(relocations.symbol.max(initial=-1)) + 1)
    texts = [(tag, value) for tag, value in entries if tag in (DT_NEEDED, DT_SONAME)]
    names = names_at(strings, np.array([value for _tag, value in texts], dtype=np.uint32), file.path)
    named = [(tag, name) for (tag, _value), name in zip(texts, names, strict=True)]
    return DynamicTables(
        symbols,
        relocations,
        tuple(name for tag, name in named if tag == DT_NEEDED),
        next((name for tag, name in named if tag == DT_SONAME), ""),
        _versions(file, where, strings),
        DT_SYMBOLIC in sizes or bool(sizes.get(DT_FLAGS, 0) & DF_SYMBOLIC),
        DT_VERDEF in sizes,
        # Read back from memory they hold their target already.
        np.empty(0, np.int64) if relocated_by else _packed(file, where, sizes),
    )


def dynamic_entries(file: LinkedFile) -> list[tuple[int, int]]:
    """(tag, value) rows up to DT_NULL; [] for a static executable."""
    segment = file.segment(PT_DYNAMIC)
    if segment is None:
        return []
    content = file.content[segment.offset : segment.offset + segment.file_size // 16 * 16]
    rows = np.frombuffer(content, dtype="<u8").reshape(-1, 2)
    end = np.flatnonzero(rows[:, 0] == 0)
    return [(tag, value) for tag, value in rows[: int(end[0]) if len(end) else len(rows)].tolist()]


def _part(file: LinkedFile, address: int, size: int, what: str) -> memoryview:
    found = file.at(address, size)
    if found is None:
        malformed(file.path, f"the dynamic {what} is not inside the file")
    return found


def _symbols(file: LinkedFile, where: dict[int, int], strings: memoryview, used: int) -> DynamicSymbols:
    # GNU ld's hash table covers nothing when nothing is exported; what relocations use is there all the same.
    count = max(_symbol_count(file, where), used)
    raw = np.frombuffer(_part(file, where[DT_SYMTAB], 24 * count, "symbol table"), SYMBOL)
    version = np.ones(count, dtype=np.int64)
    if DT_VERSYM in where:
        version = np.frombuffer(_part(file, where[DT_VERSYM], 2 * count, "version table"), "<u2").astype(np.int64)
    return DynamicSymbols(
        name=names_of(strings, raw["name"], file.path),
        type=(raw["info"] & 15).astype(np.uint8),
        binding=(raw["info"] >> 4).astype(np.uint8),
        visibility=(raw["other"] & 3).astype(np.uint8),
        section=raw["section"].astype(np.int64),
        value=raw["value"].astype(np.int64),
        size=raw["size"].astype(np.int64),
        version=version & 0x7FFF,
        hidden=(version & 0x8000) != 0,
    )


def _symbol_count(file: LinkedFile, where: dict[int, int]) -> int:
    """The symbol table has no size of its own: the hash tables tell (gABI DT_HASH; glibc's DT_GNU_HASH)."""
    if DT_HASH in where:
        return int.from_bytes(_part(file, where[DT_HASH], 8, "hash table")[4:8], "little")
    if DT_GNU_HASH not in where:
        return max(0, where[DT_STRTAB] - where[DT_SYMTAB]) // 24
    head = np.frombuffer(_part(file, where[DT_GNU_HASH], 16, "hash table"), "<u4")
    buckets_at = where[DT_GNU_HASH] + 16 + 8 * int(head[2])
    buckets = np.frombuffer(_part(file, buckets_at, 4 * int(head[0]), "hash table"), "<u4")
    last, first = int(buckets.max(initial=0)), int(head[1])
    if last < first:
        return first
    chains_at = buckets_at + 4 * len(buckets)
    room = file.room_at(chains_at + 4 * (last - first)) // 4
    chain = np.frombuffer(_part(file, chains_at + 4 * (last - first), 4 * room, "hash table"), "<u4")
    ends = np.flatnonzero(chain & 1)
    if len(ends) == 0:
        malformed(file.path, "the hash table does not end")
    return last + int(ends[0]) + 1


def _relocations(file: LinkedFile, where: dict[int, int], sizes: dict[int, int]) -> DynamicRelocations:
    parts = []
    for tag, size_tag in ((DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)):
        if tag in where and sizes.get(size_tag):
            content = _part(file, where[tag], sizes[size_tag] // 24 * 24, "relocation table")
            parts.append(np.frombuffer(content, RELA))
    raw = np.concatenate(parts) if parts else np.empty(0, RELA)
    return relocation_columns(raw, file.machine)


def _packed(file: LinkedFile, where: dict[int, int], sizes: dict[int, int]) -> I64:
    """An even entry is the address of a field; an odd one says in 63 bits which of the words behind the last one are
    fields, too (gABI, "Relative Relocation Table")."""
    if DT_RELR not in where or not sizes.get(DT_RELRSZ):
        return np.empty(0, np.int64)
    content = _part(file, where[DT_RELR], sizes[DT_RELRSZ] // 8 * 8, "table of packed relocations")
    found: list[int] = []
    place = 0
    for entry in np.frombuffer(content, "<u8").tolist():
        if entry & 1:
            found += [place + 8 * bit for bit in range(63) if entry >> bit + 1 & 1]
            place += 8 * 63
        else:
            found.append(entry)
            place = entry + 8
    return np.array(found, dtype=np.int64)


def relocation_columns(raw: npt.NDArray[np.void], machine: str) -> DynamicRelocations:
    """Elf64_Rela rows as columns; types by the numbers of x86-64."""
    types = raw["type"].astype(np.int64)
    if machine == "aarch64":
        numbers = np.zeros(max(elf_aarch64.DYNAMIC) + 1, dtype=np.int64)
        numbers[list(elf_aarch64.DYNAMIC)] = list(elf_aarch64.DYNAMIC.values())
        types = numbers[np.where(types < len(numbers), types, 0)]
    return DynamicRelocations(
        raw["offset"].astype(np.int64),
        types,
        raw["symbol"].astype(np.int64),
        raw["addend"].astype(np.int64),
    )


def _versions(file: LinkedFile, where: dict[int, int], strings: memoryview) -> dict[int, str]:
    """Version index -> name, of the definitions and of the needs (LSB core, "Symbol Versioning")."""
    found: dict[int, int] = {}
    if DT_VERDEF in where:
        at, step = where[DT_VERDEF], 1
        while step:
            row = _part(file, at, 20, "version definitions")  # version, flags, index, count, hash, aux, next
            index, aux, step = _half(row, 4), _word(row, 12), _word(row, 16)
            found[index & 0x7FFF] = _word(_part(file, at + aux, 8, "version definitions"), 0)
            at += step
    if DT_VERNEED in where:
        at, step = where[DT_VERNEED], 1
        while step:
            row = _part(file, at, 16, "version needs")  # version, count, file, aux, next
            count, aux, step = _half(row, 2), at + _word(row, 8), _word(row, 12)
            for _ in range(count):
                need = _part(file, aux, 16, "version needs")  # hash, flags, index, name, next
                found[_half(need, 6) & 0x7FFF] = _word(need, 8)
                aux += _word(need, 12)
            at += step
    names = names_at(strings, np.array(list(found.values()), dtype=np.uint32), file.path)
    return dict(zip(found, names, strict=True))


def _half(row: memoryview, at: int) -> int:
    return int.from_bytes(row[at : at + 2], "little")


def _word(row: memoryview, at: int) -> int:
    return int.from_bytes(row[at : at + 4], "little")
