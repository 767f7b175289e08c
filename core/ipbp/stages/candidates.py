"""Which symbols of a loaded image a symbol of an object may be, by the symbol table alone.

A global name is one thing in the whole image. A local name is only unique within its file, and the linked table puts
local symbols under the name of theirs (STT_FILE); two files of one name in different folders make two candidates.
Linkers write a hidden global as a local symbol of no file; mold writes every global that is not exported, and lld
those that a version script hides, as a local symbol of its file.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.graph.copies import without_copy_number
from ipbp.graph.image import ImageSymbols, LoadedImage
from ipbp.graph.model import COMMON, I64, U8, Binding, LinkGraph, SymbolType


@dataclass(frozen=True, slots=True)
class Candidates:
    """One row a possibility: `symbol` of the graph, `row` of the image's symbols, its `address`."""

    symbol: I64
    row: I64
    address: I64


def candidates(graph: LinkGraph, image: LoadedImage, sources: Collection[str] = ()) -> Candidates:
    """Every image symbol that a named symbol defined in the graph may have become. `sources`: base names of the files
    whose static symbols count, instead of the graph's own."""
    pairs = _of_one_name(graph, image)
    symbol, row = pairs[:, 0], pairs[:, 1]
    table = image.symbols
    fits = _same_type(graph.symbols.type[symbol], table.type[row])
    symbol, row = symbol[fits], row[fits]
    is_local, row_is_local = graph.symbols.binding[symbol] == Binding.LOCAL, table.binding[row] == Binding.LOCAL
    in_file = _files_of(sources or graph.sources, table)[table.file[row]]
    shared = ~is_local & ~row_is_local
    has_shared = np.bincount(symbol[shared], minlength=len(graph.symbols)) > 0
    may_be_hidden = (table.file[row] < 0) | in_file | (len(table.files) == 1)
    hidden = ~is_local & row_is_local & ~has_shared[symbol] & may_be_hidden
    own = in_file if sources else in_file & _is_of_its_member(graph, symbol, table, row)
    keep = shared | hidden | (is_local & row_is_local & own)
    return Candidates(symbol[keep], row[keep], table.address[row[keep]])


def _of_one_name(graph: LinkGraph, image: LoadedImage) -> I64:
    """(symbol, row of the image) for all that have one name; symbols ascending."""
    given = graph.symbols.name.are_given()
    defined = np.flatnonzero(given & ((graph.symbols.block >= 0) | (graph.symbols.block == COMMON)))
    names = graph.symbols.name.take(defined)
    if graph.members:
        names = without_copy_number(names)
    wanted, row = image.symbols.by_name.pairs(names)
    return np.stack([defined[wanted], row], axis=1)


def _is_of_its_member(graph: LinkGraph, symbol: I64, table: ImageSymbols, row: I64) -> npt.NDArray[np.bool_]:
    """Whether the image's row stands under the file of that object which defines the symbol, or under none."""
    if not graph.members:
        return np.ones(len(row), dtype=np.bool_)
    place = {name: number for number, name in enumerate(table.files) if name}
    file = np.array([place.get(member.source, -1) for member in graph.members])
    first = np.array([member.first_section for member in graph.members])
    home = np.maximum(graph.symbols.block[symbol], 0)
    own = file[np.searchsorted(first, graph.blocks.section[home], side="right") - 1]
    result: npt.NDArray[np.bool_] = (table.file[row] == own) | (own < 0) | (table.file[row] < 0)
    return result


def _files_of(sources: Collection[str], table: ImageSymbols) -> npt.NDArray[np.bool_]:
    """For each file of the image whether it may be one of `sources`; the last row stands for "no file"."""
    unknown = "" in sources or not table.files
    return np.array([unknown or name in sources for name in table.files] + [unknown], dtype=np.bool_)


def _same_type(one: U8, other: U8) -> npt.NDArray[np.bool_]:
    """Columns of `SymbolType`. An indirect function may have become a plain one; labels have no type."""
    fold = np.arange(256, dtype=np.uint8)
    fold[SymbolType.IFUNC] = SymbolType.FUNCTION
    untyped = (one == SymbolType.NONE) | (other == SymbolType.NONE)
    thread = (one == SymbolType.TLS) | (other == SymbolType.TLS)
    result: npt.NDArray[np.bool_] = (fold[one] == fold[other]) | (untyped & ~thread)
    return result
