"""The names of an object in the store: what it gives to others, and what it uses of theirs.

Each patch asks this of every unit that was patched before, for the objects that run beside it. A digest stands for one
content for ever, so an object is read once in an engine's life.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ipbp.build.store import Store
from ipbp.graph.model import I64, UNDEFINED, Binding, LinkGraph, SymbolType, Visibility
from ipbp.graph.unit import UNBOUND
from ipbp.pipeline.old_side import addresses_by_name
from ipbp.pipeline.stored import read_stored

_NAMED = (SymbolType.NONE, SymbolType.OBJECT, SymbolType.FUNCTION, SymbolType.TLS)


@dataclass(frozen=True, slots=True)
class UnitNames:
    """`defined`: global names that stand there once, and whether other images may see them. `used`: names of other
    objects."""

    defined: dict[str, bool]
    used: frozenset[str]


@lru_cache(maxsize=4096)
def stored_names(store: Store, digest: str, members: tuple[str, ...] | None = None) -> UnitNames:
    """`members`: as for `read_stored`. Errors: those of `Store.get` and of reading an object."""
    graph = read_stored(digest, store, digest, members)
    used = np.unique(graph.edges.target)
    outside = used[graph.symbols.block[used] == UNDEFINED]
    defined = list(global_symbols(graph, np.arange(len(graph.symbols))))
    once = addresses_by_name(graph, dict.fromkeys((name for _row, name, _is_shared in defined), 0))
    return UnitNames(
        {name: is_shared for row, name, is_shared in defined if once[row] != UNBOUND},
        frozenset(graph.symbols.name[row] for row in outside.tolist()),
    )


def global_symbols(graph: LinkGraph, rows: I64) -> Iterator[tuple[int, str, bool]]:
    """Row and name of each of these symbols that the object defines for others, and whether other images may see it."""
    symbols = graph.symbols
    rows = rows[(symbols.block[rows] >= 0) & (symbols.binding[rows] != Binding.LOCAL)]
    for row in rows[np.isin(symbols.type[rows], _NAMED)].tolist():
        yield row, symbols.name[row], bool(symbols.visibility[row] == Visibility.DEFAULT)
