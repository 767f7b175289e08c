"""The rows of a linked file's symbol table as columns, whichever table of whichever file they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ipbp.formats.elf_dynamic import DynamicTables
from ipbp.formats.elf_file import SHN_LORESERVE, SHN_XINDEX, SHT_SYMTAB, STT_FILE
from ipbp.formats.elf_linked import SYMBOL, LinkedFile, malformed, names_of
from ipbp.graph.model import I64, U8
from ipbp.graph.names import Names


@dataclass(frozen=True, slots=True)
class SymbolRows:
    """In the file's order, with its own numbers of types and bindings. `section`: 0 for what is not defined at a place.
    `value`: link address (an offset in the TLS block for TLS). `file`: row of `files`, the STT_FILE names without
    their folders, that a local symbol stands under, or -1."""

    name: Names
    type: U8
    binding: U8
    section: I64
    value: I64
    size: I64
    file: I64
    files: tuple[str, ...]


def static_rows(file: LinkedFile) -> SymbolRows:
    """The table that linkers write and `strip` removes; the file must have one. Errors: `image-malformed`."""
    table = next(row for row in file.sections if row.type == SHT_SYMTAB)
    if table.entry_size != 24:
        malformed(file.path, "the symbol table's entries are not 24 bytes")
    raw = np.frombuffer(file.section_content(table)[: table.size // 24 * 24], SYMBOL)
    names = names_of(static_strings(file), raw["name"], file.path)
    type_, binding = (raw["info"] & 15).astype(np.uint8), (raw["info"] >> 4).astype(np.uint8)
    section = raw["section"].astype(np.int64)
    section[section == SHN_XINDEX] = 1
    section[section >= SHN_LORESERVE] = 0
    group, files = _files(names, type_, binding, (raw["other"] & 3).astype(np.uint8))
    value, size = raw["value"].astype(np.int64), raw["size"].astype(np.int64)
    return SymbolRows(names, type_, binding, section, value, size, group, files)


def static_strings(file: LinkedFile) -> memoryview:
    """The string table of the same table."""
    table = next(row for row in file.sections if row.type == SHT_SYMTAB)
    return file.section_content(file.sections[table.link])


def dynamic_rows(tables: DynamicTables) -> SymbolRows:
    """What the dynamic loader sees, which knows no files."""
    rows = tables.symbols
    none = np.full(len(rows.name), -1, dtype=np.int64)
    older = np.flatnonzero(rows.hidden & (rows.section != 0)).tolist()
    names = rows.name.with_text({row: tables.known_as(row) for row in older})
    return SymbolRows(names, rows.type, rows.binding, rows.section, rows.value, rows.size, none, ())


def joined(one: SymbolRows, other: SymbolRows) -> SymbolRows:
    """The rows of both, where only `other` has files."""
    return SymbolRows(
        Names(one.name.rows.followed_by(other.name.rows)),
        np.concatenate([one.type, other.type]),
        np.concatenate([one.binding, other.binding]),
        np.concatenate([one.section, other.section]),
        np.concatenate([one.value, other.value]),
        np.concatenate([one.size, other.size]),
        np.concatenate([one.file, other.file]),
        other.files,
    )


def _files(names: Names, type_: U8, binding: U8, visibility: U8) -> tuple[I64, tuple[str, ...]]:
    """For each symbol the row in `files` of the STT_FILE that it stands under, -1 for globals and for none. A hidden
    global has become a local symbol of no file: GNU linkers put an STT_FILE with an empty name before those, lld
    leaves them under the file that defines them, but no static name has a visibility (gABI, "Symbol Visibility")."""
    heads = np.flatnonzero(type_ == STT_FILE)
    files = tuple(name.rsplit("/", 1)[-1] for name in names.take(heads))
    group: I64 = np.searchsorted(heads, np.arange(len(names)), side="right") - 1
    blank = np.array([not name for name in files] + [True], dtype=np.bool_)
    group[blank[group] | (binding != 0) | (visibility != 0)] = -1
    return group, files
