"""Tables of methods (`dyn Trait`) whose slots mean something else after an edit.

A value behind `dyn` keeps the table that it was made with; new code calls through it by the number of a slot. So a
slot must hold the same method as before, taking the same. Its code may be another: the old entry leads to the new
one. Where a type has a method of its own now instead of the trait's, or the other way round, that takes the old one's
place if both are in this unit. A method more, or one less, is a change of the table's layout (`stages.type_changes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import LinkGraph
from ipbp.graph.types import DebugTypes
from ipbp.stages.name_numbers import base_name
from ipbp.stages.type_changes import TypeChanges, without_arguments

# rustc_codegen_ssa, `build_vtable_type_di_node`: drop, size, alignment, then the methods.
_FIRST_METHOD = 24
_NUMBERS = (1, 2)

Slots = Mapping[int, frozenset[str]]
"""By offset in a table the linkage names of the function there; several where one address has them."""


@dataclass(frozen=True, slots=True)
class TableChanges:
    """`successors`: linkage name of a new function -> that of the old one whose place in tables it takes. `refusals`:
    `method-table-changed`, `entry-shared`. `notes`: what is dropped as before."""

    successors: Mapping[str, str]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()


def table_changes(
    old: LinkGraph,
    before: DebugTypes,
    slots: Mapping[str, Slots],
    new: LinkGraph,
    after: DebugTypes,
    types: TypeChanges,
    file: str,
) -> TableChanges:
    """What the tables that both sides have say about an edit. `slots`: of the old side's tables, by their names.
    `file`: of the unit, for messages."""
    successors: dict[str, str] = {}
    refusals: list[Refusal] = []
    notes: list[str] = []
    fresh = {name: slots_of_graph(new, place) for name, place in after.tables.items()}
    folded = _in_several(slots.values()) | _in_several(fresh.values())
    for name in sorted(after.tables.keys() & slots.keys()):
        kind = _type_of(name)
        if types.is_renewed(name) or before.layouts.get(kind) != after.layouts.get(kind):
            continue
        words = []
        is_folded = False
        one, other = slots[name], fresh[name]
        for slot in sorted(one.keys() | other.keys()):
            had = one.get(slot, frozenset())
            has = next(iter(other.get(slot, ())), "")
            if (has in had or not (has or had)) and has not in types.renewed:
                continue
            former = min(had, default="")
            if slot < _FIRST_METHOD:
                notes.append(f"values that exist behind '{_shown(name)}' are dropped as before")
            elif len(had) == 1 and _is_successor(has, new, after, former, old, before):
                successors[has] = former
            else:
                number = (slot - _FIRST_METHOD) // 8
                words.append(f"method {number} was {_words(former, before)} and is {_words(has, after)}")
                is_folded |= not folded.isdisjoint((*had, has))
        if words:
            refusals.append(_folded(_shown(name), file) if is_folded else _changed(_shown(name), words[0], file))
    return TableChanges(successors, tuple(refusals), tuple(dict.fromkeys(notes)))


def slots_of_graph(graph: LinkGraph, place: tuple[int, int]) -> Slots:
    """What is in a table of an object, without what ThinLTO and `graph.merge` put behind names. `place`: symbol and
    distance from it."""
    symbols, edges = graph.symbols, graph.edges
    block = int(symbols.block[place[0]])
    if block < 0:
        return {}
    start, rows = int(symbols.offset[place[0]]) + place[1], graph.edges_of(block)
    found = zip(edges.offset[rows].tolist(), edges.target[rows].tolist(), strict=True)
    return {offset - start: frozenset([base_name(symbols.name[target])]) for offset, target in found if offset >= start}


def slots_of_image(
    image: LoadedImage, read: MemoryReader, types: DebugTypes, wanted: Collection[str]
) -> dict[str, Slots]:
    """What is in the tables of a running image, by their names. `wanted`: the tables that matter."""
    names = sorted(types.tables.keys() & wanted)
    sizes = [max((row.size for row in types.layouts.get(_type_of(name), ())), default=0) for name in names]
    ranges = [(types.tables[name][1] + image.bias, size) for name, size in zip(names, sizes, strict=True)]
    found: dict[str, Slots] = {}
    for name, content in zip(names, read(ranges), strict=True):
        pointers = np.frombuffer(content or b"", np.int64)
        slots = {8 * row: _names_at(image, int(pointers[row])) for row in range(len(pointers)) if row not in _NUMBERS}
        found[name] = {offset: at for offset, at in slots.items() if at}
    return found


def _names_at(image: LoadedImage, address: int) -> frozenset[str]:
    first, last = np.searchsorted(image.symbols.address, [address, address + 1])
    return frozenset(base_name(image.symbols.name[row]) for row in range(first, last))


def _type_of(table: str) -> str:
    """`<T as Trait>::{vtable}` -> `<T as Trait>::{vtable_type}`"""
    return f"{table.removesuffix('}')}_type}}"


def _is_successor(has: str, new: LinkGraph, after: DebugTypes, had: str, old: LinkGraph, before: DebugTypes) -> bool:
    """Whether the new function can have the old one's entry: the same method, and only one of the two on each side."""
    same = _method(had, before) == _method(has, after) != ""
    same &= before.signatures.get(had, "") == after.signatures.get(has, "") != ""
    return same and (_copies(old, had), _copies(old, has), _copies(new, had), _copies(new, has)) == (1, 0, 0, 1)


def _copies(graph: LinkGraph, name: str) -> int:
    """How many functions of this name the graph defines."""
    rows = graph.symbols.name.containing(name.encode())
    rows = rows[graph.symbols.block[rows] >= 0]
    return sum(base_name(graph.symbols.name[row]) == name for row in rows.tolist())


def _method(linkage: str, types: DebugTypes) -> str:
    """The method's own name, "" where that is not known."""
    return without_arguments(types.functions.get(linkage, "")).rpartition("::")[2]


def _words(linkage: str, types: DebugTypes) -> str:
    if not linkage:
        return "empty"
    return f"'{types.functions.get(linkage, linkage)}' {types.signatures.get(linkage, '')}".rstrip()


def _shown(table: str) -> str:
    """`<a::T as a::Trait>`"""
    return table.removesuffix("::{vtable}")


def _in_several(tables: Iterable[Slots]) -> frozenset[str]:
    """The methods that stand in the tables of several types. Each type has its own of every method, so that these are
    several which LLVM made one, because their code is the same."""
    count = Counter(
        name
        for slots in tables
        for name in {name for slot, names in slots.items() if slot >= _FIRST_METHOD for name in names}
    )
    return frozenset(name for name, number in count.items() if number > 1)


def _folded(name: str, file: str) -> Refusal:
    return Refusal(
        "entry-shared",
        f"a method of '{name}' is one function with those of other types, as their code is the same (LLVM), "
        "and with this edit it is another one",
        "Build with different code in them, which LLVM does not make one, and start the program once more.",
        name,
        file,
    )


def _changed(name: str, words: str, file: str) -> Refusal:
    return Refusal(
        "method-table-changed",
        f"the table of methods of '{name}' means something else now ({words}), and values that exist have the old one",
        "Leave the trait's methods in their order and as they are called, or restart the program.",
        name,
        file,
    )
