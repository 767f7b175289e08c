"""Which symbols of a loaded image the definitions of a Rust crate have become.

A mangled name is one thing in the image, except that the codegen units of a crate may have copies of a function under
it, and that ThinLTO puts a number behind it which the next build changes. Of several copies the one with the same
bytes is the best guess for a new one; the comparison does not depend on it, for copies are paired there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ipbp.graph.columns import I64, Flags
from ipbp.graph.copies import PROMOTED
from ipbp.graph.image import ImageSymbols, LoadedImage, MemoryReader
from ipbp.graph.model import Binding, BlockKind, LinkGraph, SymbolType
from ipbp.graph.rows import is_one_of
from ipbp.stages.attest import UNKNOWN
from ipbp.stages.name_numbers import name_numbers
from ipbp.stages.reading import read_blocks
from ipbp.stages.rust_names import are_rust

_UNIT = re.compile(r"(.*-cgu\.)\d+\Z", re.DOTALL)
_TYPES = (SymbolType.FUNCTION, SymbolType.OBJECT, SymbolType.TLS)


@dataclass(frozen=True, slots=True)
class CrateRows:
    """`symbol` and `row`: each new symbol that the image has, with its row there. `others`: rows of copies beyond
    those, each with a new symbol of the same bytes or UNKNOWN."""

    symbol: I64
    row: I64
    others: tuple[tuple[int, int], ...]


def is_crate(graph: LinkGraph) -> bool:
    """Whether the graph's objects are codegen units of rustc."""
    return bool(graph.members) or _UNIT.match(graph.source) is not None


def crate_sources(graph: LinkGraph, image: LoadedImage) -> frozenset[str]:
    """The files of the image that are codegen units of this crate, by the names of its units now: without incremental
    compilation they are numbered, and there may be more or fewer of them."""
    stems = {match[1] for name in graph.sources if (match := _UNIT.match(name))}
    found = {name for name in image.symbols.files if (match := _UNIT.match(name)) and match[1] in stems}
    return graph.sources | found


def crate_rows(graph: LinkGraph, image: LoadedImage, sources: Collection[str], read: MemoryReader) -> CrateRows:
    """The rows of all definitions with Rust names. `sources`: those of `crate_sources`."""
    symbol, row = _pairs(graph, image, sources)
    one, other = np.bincount(symbol, minlength=1)[symbol] == 1, np.bincount(row, minlength=1)[row] == 1
    single = one & other
    chosen = dict(zip(symbol[single].tolist(), row[single].tolist(), strict=True))
    others: list[tuple[int, int]] = []
    symbol, row = symbol[~single], row[~single]
    if len(symbol):
        equal = _equal(graph, image, symbol, row, read)
        rows = list(zip(symbol.tolist(), row.tolist(), equal.tolist(), strict=True))
        given = _assigned(rows)
        chosen.update(given)
        twin = {there: here for here, there, same in rows if same}
        others = [
            (there, twin.get(there, UNKNOWN)) for there in dict.fromkeys(row.tolist()) if there not in given.values()
        ]
    keys = sorted(chosen)
    return CrateRows(
        np.array(keys, dtype=np.int64), np.array([chosen[key] for key in keys], dtype=np.int64), tuple(others)
    )


def _pairs(graph: LinkGraph, image: LoadedImage, sources: Collection[str]) -> tuple[I64, I64]:
    """(symbol, row) for all that have one name but for numbers behind it, and are of one type."""
    table, symbols = image.symbols, graph.symbols
    own = _of_files(table, sources)
    rows = np.flatnonzero((own | (table.binding != Binding.LOCAL)) & is_one_of(table.type, _TYPES))
    rows = rows[are_rust(table.name.take(rows))]
    mine = np.flatnonzero(symbols.block >= 0)
    mine = mine[are_rust(symbols.name.take(mine))]
    names = name_numbers(table.name.take(rows), symbols.name.take(mine))
    order = np.argsort(names.old_base, kind="stable")
    ordered = names.old_base[order]
    first = np.searchsorted(ordered, names.new_base)
    count = np.searchsorted(ordered, names.new_base, side="right") - first
    owner = np.repeat(np.arange(len(mine)), count)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    symbol, row = mine[owner], rows[order[first[owner] + within]]
    fits = symbols.type[symbol] == table.type[row]
    return symbol[fits], row[fits]


def promoted_constants(image: LoadedImage) -> I64:
    """Rows of the read-only data that ThinLTO let other codegen units use. They have no names of their own."""
    table = image.symbols
    rows = table.name.containing(PROMOTED)
    found: I64 = rows[(table.type[rows] == SymbolType.OBJECT) & ~are_rust(table.name.take(rows))]
    return found


def _of_files(table: ImageSymbols, sources: Collection[str]) -> Flags:
    """For each row whether it may stand under one of these files. Of hidden names no file is known; but linkers keep
    the functions of an object together, so that a neighbour with a file tells."""
    own: Flags = np.array([name in sources for name in table.files] + [True], dtype=np.bool_)[table.file]
    hidden = table.name.containing(PROMOTED)
    hidden = hidden[(table.file[hidden] < 0) & (table.type[hidden] == SymbolType.FUNCTION)]
    telling = np.flatnonzero((table.file >= 0) & (table.type == SymbolType.FUNCTION))
    if len(telling):
        place = np.searchsorted(telling, hidden)
        own[hidden] = own[telling[np.maximum(place - 1, 0)]] | own[telling[np.minimum(place, len(telling) - 1)]]
    return own


def _equal(graph: LinkGraph, image: LoadedImage, symbol: I64, row: I64, read: MemoryReader) -> Flags:
    """For each pair whether memory has the bytes of that function."""
    block = graph.symbols.block[symbol].astype(np.int64)
    fits: Flags = (graph.symbols.offset[symbol] == 0) & (graph.blocks.kind[block] == BlockKind.CODE)
    fits &= graph.blocks.size[block] == image.symbols.size[row]
    where = np.flatnonzero(fits)
    fits[where] = read_blocks(graph, block[where], image.symbols.address[row[where]], image, read).matches()
    return fits


def _assigned(rows: Sequence[tuple[int, int, bool]]) -> dict[int, int]:
    """A row for each symbol, none twice: one of the same bytes where there is one."""
    found: dict[int, int] = {}
    taken: set[int] = set()
    for wanted in (True, False):
        for symbol, row, same in rows:
            if symbol not in found and row not in taken and (same or not wanted):
                found[symbol] = row
                taken.add(row)
    return found
