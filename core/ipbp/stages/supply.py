"""A part of a library that the linker left out of the program, because nothing needed it, and the new code does.

The object that defines it is there still, in an archive. What is wanted of it is carried with all that it needs;
what of that object the program has already is bound to the running copy. The object was not edited, so there is
nothing to compare: what has one name is one thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import I64, Binding, BlockKind, LinkGraph, SymbolType
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.unwind import unwind_links

_STATE = (BlockKind.DATA, BlockKind.BSS)
_MANGLED = ("_R", "_ZN")
"""Beginnings of names that are unique in a program although they are local (Rust's manglings, with a hash)."""


def supply(
    name: str, graph: LinkGraph, wanted: Iterable[str], image: LoadedImage, patched: Mapping[str, int]
) -> tuple[Unit, tuple[Refusal, ...]]:
    """The unit that carries the definitions of `wanted`, and a refusal for each variable that it needs and that may
    be any of several in the program. `name`: of the unit, for messages. `patched`: where patches put what has a name.
    """
    address = _running(graph, image, patched)
    wanted = set(wanted)
    home = graph.symbols.block
    waiting = [int(home[row]) for row, symbol in enumerate(graph.symbols.name) if symbol in wanted and home[row] >= 0]
    links = unwind_links(graph)
    carried: set[int] = set()
    refusals: list[Refusal] = []
    while waiting:
        block = waiting.pop()
        if block in carried:
            continue
        carried.add(block)
        address[home == block] = UNBOUND
        targets = np.unique(graph.edges.target[graph.edges_of(block)])
        for symbol in (*targets.tolist(), *links.symbol[links.block == block].tolist()):
            target = int(home[symbol])
            if target < 0 or address[symbol] != UNBOUND:
                continue
            if BlockKind(graph.blocks.kind[target]) in _STATE and graph.symbols.name[symbol] in image.symbols.by_name:
                refusals.append(_ambiguous(graph.symbols.name[symbol], graph.block_name(block), name))
                continue
            waiting.append(target)
    resolver = np.full(len(graph.symbols), UNBOUND, dtype=np.int64)
    return Unit(name, graph, np.array(sorted(carried), dtype=np.int32), address, resolver, image=image.key), tuple(
        refusals
    )


def _running(graph: LinkGraph, image: LoadedImage, patched: Mapping[str, int]) -> I64:
    """Load addresses of what the program has of this object: of global names, and of local ones that are unique by
    their making. A local constant is as good as its copy."""
    symbols, table = graph.symbols, image.symbols
    address = np.full(len(symbols), UNBOUND, dtype=np.int64)
    for row in np.flatnonzero(symbols.block >= 0).tolist():
        name = symbols.name[row]
        local = symbols.binding[row] == Binding.LOCAL
        constant = graph.blocks.kind[symbols.block[row]] in (BlockKind.RODATA, BlockKind.RELRO)
        if not name or symbols.type[row] == SymbolType.TLS or (local and (constant or not name.startswith(_MANGLED))):
            continue
        places = {int(table.address[found]) for found in table.by_name.get(name, ())}
        if not places and name in patched:
            places = {patched[name]}
        if len(places) == 1:
            address[row] = places.pop()
    return address


def _ambiguous(name: str, user: str, file: str) -> Refusal:
    return Refusal(
        "ambiguous-static",
        f"'{user}' uses '{name}', and the running program has several variables of that name",
        "Use something else than this function of the library, or build and start the program once more.",
        name,
        file,
    )
