"""The symbol table of a patch file: the carried functions and variables under their own names, local ones too.

Debuggers name a frame without debug information by it, and `objdump -d` its functions. A stub is called
`stub$name`, so that it shows where a far call goes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ipbp.graph.layout import Chunk, Layout, UnitLayout
from ipbp.graph.model import Binding, SymbolType
from ipbp.graph.unit import UNBOUND, Unit

_STT_FILE = 4
_SHN_ABS = 0xFFF1
_ENTRY = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size


@dataclass(frozen=True, slots=True)
class SymbolTable:
    """`locals`: the number of local entries, which come first (gABI, "Symbol Table")."""

    entries: bytes
    strings: bytes
    locals: int


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    binding: int
    type: int
    visibility: int
    section: int
    address: int
    size: int


def symbol_table(units: Sequence[Unit], layout: Layout, sections: Mapping[str, int]) -> SymbolTable:
    """`sections`: index of each section header by its name."""
    rows: list[_Row] = []
    for unit, columns in zip(units, layout.units, strict=True):
        source = unit.graph.source or unit.name.rpartition("/")[2]
        rows.append(_Row(source, Binding.LOCAL, _STT_FILE, 0, _SHN_ABS, 0, 0))
        rows += _carried(unit, columns, layout.chunks, sections)
    rows += [
        _Row(f"stub${row.name}", Binding.LOCAL, SymbolType.FUNCTION, 0, sections[".stubs"], row.address, 8)
        for row in layout.stubs
    ]
    # sorted() keeps the order otherwise, so a file's local symbols stay behind its name.
    rows = sorted(rows, key=lambda row: row.binding != Binding.LOCAL)
    strings, entries = bytearray(b"\0"), bytearray(_ENTRY.size)
    for row in rows:
        info = row.binding << 4 | row.type
        entries += _ENTRY.pack(len(strings), info, row.visibility, row.section, row.address, row.size)
        strings += row.name.encode("utf-8", "surrogateescape") + b"\0"
    local = sum(row.binding == Binding.LOCAL for row in rows)
    return SymbolTable(bytes(entries), bytes(strings), local + 1)


def _carried(unit: Unit, columns: UnitLayout, chunks: Sequence[Chunk], sections: Mapping[str, int]) -> Iterator[_Row]:
    symbols = unit.graph.symbols
    for symbol in np.flatnonzero(columns.copy != UNBOUND).tolist():
        name, address = symbols.name[symbol], int(columns.copy[symbol])
        chunk = next((row for row in chunks if row.start <= address < row.end), None)
        # Names that start with .L are the compiler's own and no other tool shows them.
        # A thread-local symbol's value is an offset in its file's block, and this file has none.
        if not name or name.startswith(".L") or chunk is None or symbols.type[symbol] == SymbolType.TLS:
            continue
        yield _Row(
            name,
            int(symbols.binding[symbol]),
            int(symbols.type[symbol]),
            int(symbols.visibility[symbol]),
            sections[chunk.name],
            address,
            int(symbols.size[symbol]),
        )
