"""Every name that a patch uses and does not bring along gets one load address, or a refusal.

Searched in this order: what the patch itself defines (left open, for layout knows its place), what the executable
defines, hidden or not (a new object of the program may use it as any other object of it could), then what edited
objects define that run already (new in an earlier patch, or static before), then what the process has loaded, in the
dynamic loader's order. A name that another object of the program declares weak and nobody defines is 0, as for a
linker (gABI, "Symbol Table"). Runs before layout: whether a call needs a stub depends on how far it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.image import Found, LoadedImage
from ipbp.graph.model import COMMON, I64, UNDEFINED, Binding, SymbolType
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.got_base import GOT_NAME, image_base

Lookup = Callable[[str], "Found | None"]
_NOTHING: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class _Place:
    """`resolver`: load address of an indirect function's resolver when `address` is not known yet."""

    address: int
    resolver: int = UNBOUND


def resolve(
    units: Sequence[Unit], image: LoadedImage, lookup: Lookup, defined: Mapping[str, int] = _NOTHING
) -> tuple[list[Unit], tuple[Refusal, ...]]:
    """The units with `address` and `resolver` of every outside symbol and `got_base` filled in, and one
    `undefined-symbol` for each name that nothing in the process has. `lookup` is `LoadedProcess.lookup`. `defined`:
    load addresses of the global names of edited objects that run already, which the image may not know or know as
    static."""
    brought = _brought(units)
    places: dict[str, _Place | None] = {}
    refusals: list[Refusal] = []
    resolved = []
    for unit in units:
        address, resolver, got_base = unit.address.copy(), unit.resolver.copy(), image_base(image)
        symbols = unit.graph.symbols
        for symbol in _open_symbols(unit).tolist():
            name = symbols.name[symbol]
            if name in brought or name == GOT_NAME:
                continue
            if name not in places:
                places[name] = _find(name, image, lookup, defined)
            place = places[name]
            if place is not None:
                address[symbol], resolver[symbol] = place.address, place.resolver
            elif symbols.block[symbol] == COMMON:
                continue  # a new variable: layout makes it
            elif symbols.binding[symbol] == Binding.WEAK:
                address[symbol] = 0
            else:
                refusals.append(_undefined(name, unit.name))
        resolved.append(replace(unit, address=address, resolver=resolver, got_base=got_base))
    return resolved, tuple(dict.fromkeys(refusals))


def _brought(units: Sequence[Unit]) -> set[str]:
    """Names that carried blocks define for other units and that the process did not have before."""
    names: set[str] = set()
    for unit in units:
        symbols = unit.graph.symbols
        carried = np.zeros(len(unit.graph.blocks) + 1, dtype=np.bool_)
        carried[unit.carried] = True
        home = np.where(symbols.block >= 0, symbols.block, len(unit.graph.blocks))
        given = carried[home] & (symbols.binding != Binding.LOCAL) & (unit.address == UNBOUND)
        names.update(symbols.name[row] for row in np.flatnonzero(given).tolist())
    return names


def _open_symbols(unit: Unit) -> I64:
    """Symbols without an address that the carried blocks' fixups target. Thread-local ones are not addresses; what
    they are judged by is their kind of fixup."""
    graph = unit.graph
    first, last = graph.first_edge[unit.carried], graph.first_edge[unit.carried + 1]
    rows = [np.arange(a, b) for a, b in zip(first.tolist(), last.tolist(), strict=True)]
    target = np.unique(graph.edges.target[np.concatenate(rows)]).astype(np.int64) if rows else np.empty(0, np.int64)
    symbols = graph.symbols
    outside = (symbols.block[target] == UNDEFINED) | (symbols.block[target] == COMMON)
    result: I64 = target[outside & (unit.address[target] == UNBOUND) & (symbols.type[target] != SymbolType.TLS)]
    return result


def _find(name: str, image: LoadedImage, lookup: Lookup, defined: Mapping[str, int]) -> _Place | None:
    own = _own(name, image)
    if own is not None:
        return own
    if name in defined:
        return _Place(defined[name])
    found = lookup(name)
    if found is not None and not found.thread_local:
        return _Place(UNBOUND, found.address) if found.indirect else _Place(found.address)
    # Before the loader has bound anything, a function's stub in the executable is as good as the function.
    stub = next((address for address, target in image.stubs.items() if target == name), None)
    return None if stub is None else _Place(stub)


def _own(name: str, image: LoadedImage) -> _Place | None:
    """The executable's own definition: a global one, or a hidden one, which linkers turn into a local symbol of no
    file. Another file's static of that name is not meant."""
    table = image.symbols
    rows = image.symbols.by_name.get(name, ())
    shared = [row for row in rows if table.binding[row] != Binding.LOCAL]
    hidden = [row for row in rows if table.file[row] < 0 and len(table.files) > 0]
    for row in shared or hidden:
        address = int(table.address[row])
        if table.type[row] == SymbolType.TLS:
            continue
        if table.type[row] != SymbolType.IFUNC:
            return _Place(address)
        stub = next((place for place, target in image.stubs.items() if target == name), None)
        return _Place(UNBOUND, address) if stub is None else _Place(stub)
    return None


def _undefined(name: str, file: str) -> Refusal:
    return Refusal(
        "undefined-symbol",
        f"the new code uses '{name}', which neither the program nor a library that it has loaded defines",
        "Define it, or link the program with the library that has it (-l) and start it once more.",
        name,
        file,
    )
