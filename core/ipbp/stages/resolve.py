"""Every name that a patch uses and does not bring along gets one load address, or a refusal.

A name means what it would mean had the new object been linked into the unit's own image. What the image binds to
itself comes first: all that the executable defines, of a library what it does not export or exports for others only
(hidden, protected, -Bsymbolic). Else what the dynamic loader has bound the image's own references to, as its pointer
cells tell; else the loader's search from inside this image, so that LD_PRELOAD and namespaces count. Edited objects
extend their image: what they define may be new, or was static before. What the patch itself defines is left open,
for layout knows its place. A name that is only declared weak and that nobody defines is 0, as for a linker (gABI,
"Symbol Table"). Runs before layout: whether a call needs a stub depends on how far it goes.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.columns import Flags
from ipbp.graph.image import LoadedImage, Scope
from ipbp.graph.model import COMMON, I64, UNDEFINED, Binding, SymbolType, Visibility
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.got_base import GOT_NAME, image_base
from ipbp.stages.targets import carried_edges
from ipbp.stages.unwind import unwind_links
from ipbp.stages.wrapped import real_name, wrapper_of


@dataclass(frozen=True, slots=True)
class Defined:
    """A global name of an edited object that runs already. `is_shared`: other images may see it. `is_beside`: the image
    has another function under that name, which goes on beside this one."""

    address: int
    is_shared: bool
    is_beside: bool = False


Edited = Mapping[str, Mapping[str, Defined]]
"""By key of the image, then by name."""
_NOTHING: Edited = {}


@dataclass(frozen=True, slots=True)
class _Place:
    """`resolver`: load address of an indirect function's resolver when `address` is not known yet. `giver`: key of
    the image whose unit brings the name with this patch, "" when the process has it. `rivals`: what the name may be,
    in words, when that is not decided."""

    address: int = UNBOUND
    resolver: int = UNBOUND
    giver: str = ""
    rivals: tuple[str, ...] = ()


def resolve(
    units: Sequence[Unit], scopes: Mapping[str, Scope], edited: Edited = _NOTHING
) -> tuple[list[Unit], tuple[Refusal, ...]]:
    """The units with `address`, `resolver` and `giver` of every outside symbol and `got_base` filled in, and one
    `undefined-symbol` for each name that nothing in the process has. `scopes`: of the units' images, by key.
    `edited`: global names of edited objects that run already, which the images may not know or know as static."""
    search = _Search(scopes, _brought(units), edited, _hiding(units, scopes))
    refusals: list[Refusal] = []
    resolved = []
    for unit in units:
        address, resolver, giver = unit.address.copy(), unit.resolver.copy(), dict[str, str]()
        symbols = unit.graph.symbols
        for symbol in _open_symbols(unit, scopes[unit.image]).tolist():
            name = symbols.name[symbol]
            if name == GOT_NAME:
                continue
            is_own = symbols.visibility[symbol] != Visibility.DEFAULT or name in unit.straight
            place = _wrapped(search, unit, symbol) or search.find(unit.image, name, is_own)
            if place is not None and place.rivals:
                refusals.append(_ambiguous(name, unit.name, place.rivals))
            elif place is not None and place.giver:
                giver[name] = place.giver
            elif place is not None:
                address[symbol], resolver[symbol] = place.address, place.resolver
            elif symbols.block[symbol] >= 0 or symbols.block[symbol] == COMMON:
                continue  # new: layout makes it
            elif symbols.binding[symbol] == Binding.WEAK:
                address[symbol] = 0
            else:
                refusals.append(_undefined(name, unit.name))
        got_base = image_base(scopes[unit.image].image)
        resolved.append(replace(unit, address=address, resolver=resolver, giver=giver, got_base=got_base))
    return resolved, tuple(dict.fromkeys(refusals))


def _wrapped(search: _Search, unit: Unit, symbol: int) -> _Place | None:
    """What an undefined symbol means when the image was linked with --wrap for it, else None."""
    name = unit.graph.symbols.name[symbol]
    if unit.graph.symbols.block[symbol] != UNDEFINED:
        return None
    wrapper, real = search.own(unit.image, wrapper_of(name)), real_name(name)
    if wrapper is None and real and search.own(unit.image, name) is None:
        return search.find(unit.image, real, False)
    return wrapper


class _Search:
    """Each name of each image is looked for once. `brought`: as `edited`, of what comes with this patch. `hiding`: keys
    of images that were linked so that nothing new is exported by itself."""

    def __init__(self, scopes: Mapping[str, Scope], brought: Edited, edited: Edited, hiding: Container[str]) -> None:
        self.scopes, self.brought, self.edited, self.hiding = scopes, brought, edited, hiding
        self._found: dict[tuple[str, str, bool], _Place | None] = {}

    def find(self, image: str, name: str, is_own: bool) -> _Place | None:
        """What `name` means from inside the image. `is_own`: its own definition is meant (hidden, bound by the
        linker)."""
        key = image, name, is_own
        if key not in self._found:
            self._found[key] = self._find(*key)
        return self._found[key]

    def own(self, image: str, name: str) -> _Place | None:
        """The image's own definition, an edited object's or that of the running code."""
        return self._defined_by(image, name) or _of_image(name, self.scopes[image].image)

    def _find(self, image: str, name: str, is_own: bool) -> _Place | None:
        scope, own = self.scopes[image], self.own(image, name)
        if own is not None and (is_own or scope.binds_itself or not self._is_preemptible(image, name)):
            return own
        hidden = _hidden(name, scope.image) if own is None else []
        if is_own:
            return _one_of(hidden)
        bound = scope.bound(name)
        if bound is not None:
            return _Place(bound)
        found = scope.lookup(name)
        if found is not None and found.thread_local:
            found = None
        if hidden:
            return _one_of([*hidden, "that of a library"] if found else hidden)
        if own is not None and not (found and comes_before(found.image, image, scope.order)):
            return own
        if found is not None:
            return _Place(UNBOUND, found.address) if found.indirect else _Place(found.address)
        return self._shared(name, scope) or _stub(name, scope.image)

    def _is_preemptible(self, image: str, name: str) -> bool:
        """Whether the loader decides which definition of an own name counts."""
        row = self.brought.get(image, {}).get(name) or self.edited.get(image, {}).get(name)
        is_new = row is not None and row.is_shared and _of_image(name, self.scopes[image].image) is None
        return (is_new and image not in self.hiding) or self.scopes[image].exports(name)

    def _defined_by(self, image: str, name: str) -> _Place | None:
        """By an edited object, where the image itself does not define it, or where what the image has under this name
        only goes on beside it."""
        if name in self.brought.get(image, {}):
            return _Place(giver=image)
        row = self.edited.get(image, {}).get(name)
        return _Place(row.address) if row and (row.is_beside or self._lacks(image, name)) else None

    def _lacks(self, image: str, name: str) -> bool:
        return _of_image(name, self.scopes[image].image) is None

    def _shared(self, name: str, scope: Scope) -> _Place | None:
        """What an edited object of another image newly exports."""
        for key in scope.order:
            if name in self.brought.get(key, {}) and self.brought[key][name].is_shared:
                return _Place(giver=key)
            row = self.edited.get(key, {}).get(name)
            if row is not None and row.is_shared:
                return _Place(row.address)
        return None


def _brought(units: Sequence[Unit]) -> dict[str, dict[str, Defined]]:
    """Names that carried blocks define for other units and that the process did not have before, by image."""
    names: dict[str, dict[str, Defined]] = {}
    for unit in units:
        symbols = unit.graph.symbols
        carried = np.zeros(len(unit.graph.blocks) + 1, dtype=np.bool_)
        carried[unit.carried] = True
        home = np.where(symbols.block >= 0, symbols.block, len(unit.graph.blocks))
        given = carried[home] & (symbols.binding != Binding.LOCAL) & (unit.address == UNBOUND)
        of_image = names.setdefault(unit.image, {})
        for row in np.flatnonzero(given).tolist():
            of_image[symbols.name[row]] = Defined(UNBOUND, symbols.visibility[row] == Visibility.DEFAULT)
    return names


def _hiding(units: Sequence[Unit], scopes: Mapping[str, Scope]) -> set[str]:
    """Images that do not export what their units would let them: a version script says what is exported."""
    found: set[str] = set()
    for unit in units:
        symbols = unit.graph.symbols
        rows = (symbols.block >= 0) & (symbols.binding == Binding.GLOBAL) & (symbols.visibility == Visibility.DEFAULT)
        names = symbols.name.take(rows & (unit.address != UNBOUND))
        scope = scopes[unit.image]
        if any(not scope.exports(name) and _of_image(name, scope.image) is not None for name in names):
            found.add(unit.image)
    return found


def _open_symbols(unit: Unit, scope: Scope) -> I64:
    """Symbols that the carried blocks' fixups target, or their unwind rows (code that is not position-independent names
    its personality there), and whose meaning is not settled: those without an address, and in a library its own that it
    exports, for which another image's definition may count. Thread-local ones are not addresses; what they are judged
    by is their kind of fixup."""
    symbols = unit.graph.symbols
    slots = np.array([slot.symbol for slot in unit.slots], dtype=np.int64)
    links = unwind_links(unit.graph)
    shared = links.symbol[~links.is_own & np.isin(links.block, unit.carried)].astype(np.int64)
    target = np.unique(np.concatenate([carried_edges(unit).target.astype(np.int64), slots, shared]))
    outside = (symbols.block[target] == UNDEFINED) | (symbols.block[target] == COMMON)
    outside |= _brought_elsewhere(unit)[target]
    is_open = outside & (unit.address[target] == UNBOUND)
    if not scope.binds_itself:
        defined = (symbols.block[target] >= 0) | (symbols.block[target] == COMMON)
        is_open |= defined & (symbols.binding[target] != Binding.LOCAL)
    plain = (symbols.type[target] != SymbolType.TLS) & (symbols.type[target] != SymbolType.IFUNC)
    result: I64 = target[is_open & (plain | (outside & (symbols.type[target] != SymbolType.TLS)))]
    return result


def _brought_elsewhere(unit: Unit) -> Flags:
    """For each symbol whether the unit defines it and does not bring it: another unit does, or nobody needs it."""
    symbols = unit.graph.symbols
    kept = np.ones(len(unit.graph.blocks) + 1, dtype=np.bool_)
    kept[unit.carried] = False
    kept[-1] = False
    home = np.where(symbols.block >= 0, symbols.block, len(unit.graph.blocks))
    found: Flags = kept[home] & (symbols.binding != Binding.LOCAL)
    return found


def comes_before(one: str, other: str, order: Sequence[str]) -> bool:
    """Whether the loader searches image `one` before `other`, by the order of whoever asks."""
    return one != other and one in order and (other not in order or order.index(one) < order.index(other))


def _of_image(name: str, image: LoadedImage) -> _Place | None:
    """The image's own definition: a global one, or a hidden one, which linkers turn into a local symbol of no
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
        return _stub(name, image) or _Place(UNBOUND, address)
    return None


def _hidden(name: str, image: LoadedImage) -> list[_Place | str]:
    """Where the image has a local symbol that may be the global one, for linkers that do not tell the two apart."""
    table = image.symbols
    rows = image.symbols.by_name.get(name, ()) if image.hides_globals else ()
    kinds = (SymbolType.FUNCTION, SymbolType.OBJECT)
    return [_Place(int(table.address[row])) for row in rows if table.file[row] >= 0 and table.type[row] in kinds]


def _one_of(found: Sequence[_Place | str]) -> _Place | None:
    """The only one there is; several are rivals. A text stands for what another image defines."""
    if len(found) == 1 and isinstance(found[0], _Place):
        return found[0]
    rivals = tuple(f"one at {row.address:#x}" if isinstance(row, _Place) else row for row in found)
    return _Place(rivals=rivals) if rivals else None


def _ambiguous(name: str, file: str, rivals: Sequence[str]) -> Refusal:
    return Refusal(
        "symbol-ambiguous",
        f"the new code uses '{name}', which may be {' or '.join(rivals)}: the program's linker wrote its global names "
        "as static ones",
        "Give them different names, or link with -rdynamic, and start the program once more.",
        name,
        file,
    )


def _stub(name: str, image: LoadedImage) -> _Place | None:
    """Before the loader has bound anything, a function's stub in the image is as good as the function."""
    stub = next((address for address, target in image.stubs.items() if target == name), None)
    return None if stub is None else _Place(stub)


def _undefined(name: str, file: str) -> Refusal:
    return Refusal(
        "undefined-symbol",
        f"the new code uses '{name}', which neither the program nor a library that it has loaded defines",
        "Define it, or link the program with the library that has it (-l) and start it once more.",
        name,
        file,
    )
