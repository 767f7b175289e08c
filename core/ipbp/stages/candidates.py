"""Which symbols of a loaded image a symbol of an object may be, by the symbol table alone.

A global name is one thing in the whole image. A local name is only unique within its file, and the linked table puts
local symbols under the name of theirs (STT_FILE); two files of one name in different folders make two candidates.
Linkers write a hidden global as a local symbol of no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipbp.graph.image import ImageSymbols, LoadedImage
from ipbp.graph.model import COMMON, I64, Binding, LinkGraph, SymbolType

_CODE_TYPES = (SymbolType.FUNCTION, SymbolType.IFUNC)


@dataclass(frozen=True, slots=True)
class Candidates:
    """One row a possibility: `symbol` of the graph, `row` of the image's symbols, its `address`."""

    symbol: I64
    row: I64
    address: I64


def candidates(graph: LinkGraph, image: LoadedImage) -> Candidates:
    """Every image symbol that a named symbol defined in the graph may have become."""
    names = image.symbols.by_name
    defined = np.flatnonzero((graph.symbols.block >= 0) | (graph.symbols.block == COMMON))
    pairs: list[tuple[int, int]] = []
    for symbol in defined.tolist():
        rows = names.get(graph.symbols.name[symbol])
        if rows:
            pairs += [(symbol, row) for row in matching_rows(graph, symbol, rows, image.symbols)]
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Candidates(columns[:, 0], columns[:, 1], image.symbols.address[columns[:, 1]])


def matching_rows(graph: LinkGraph, symbol: int, rows: Sequence[int], table: ImageSymbols) -> list[int]:
    """Those of the image's rows of one name that fit the symbol's binding, file and type."""
    fitting = [row for row in rows if _same_type(int(graph.symbols.type[symbol]), int(table.type[row]))]
    if graph.symbols.binding[symbol] != Binding.LOCAL:
        shared = [row for row in fitting if table.binding[row] != Binding.LOCAL]
        return shared or [row for row in fitting if table.file[row] < 0 or len(table.files) == 1]
    local = [row for row in fitting if table.binding[row] == Binding.LOCAL]
    if not graph.source or not table.files:
        return local
    return [row for row in local if table.file[row] >= 0 and table.files[int(table.file[row])] == graph.source]


def _same_type(one: int, other: int) -> bool:
    if SymbolType.NONE in (one, other):
        return SymbolType.TLS not in (one, other)
    return one == other or (one in _CODE_TYPES and other in _CODE_TYPES)
