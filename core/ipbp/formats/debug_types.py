"""The types of an object or a program, out of all units of its debug information (`formats.type_units`)."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from elftools.elf.elffile import ELFFile

from ipbp.formats.debug_entries import Sections
from ipbp.formats.debug_filled import filled
from ipbp.formats.debug_split import Skeleton, Split, no_split
from ipbp.formats.type_units import ADDRESSES, INFO, TypeUnit, type_units
from ipbp.graph.model import LinkGraph, SideSection
from ipbp.graph.types import NOTHING, DebugTypes, TypeLayout, Waits
from ipbp.kept import Kept

_NEEDED = (INFO, ".debug_abbrev", ".debug_str", ".debug_line_str", ADDRESSES)
_kept: Kept[bytes, list[TypeUnit]] = Kept(32 << 20)
"""By what is in the sections, 32 MB of them."""

_of_sides: deque[tuple[tuple[SideSection, ...], DebugTypes]] = deque(maxlen=4)
"""Of the graphs that were asked about last: the new side of one patch is the old side of the next."""

Place = Callable[[str, int], tuple[int, int] | None]
"""For an offset in a section (.debug_info or .debug_addr) that holds an address: the symbol and the distance from it
that are meant."""


def types_of_graph(graph: LinkGraph, split: Split = no_split) -> DebugTypes:
    """The types of an object, or of all objects that were merged into the graph. `split`: where the other halves of
    units are. `debug-information-malformed`."""
    for side, known in _of_sides:
        if side is graph.side:
            return known
    asked = list[Skeleton]()

    def other(row: Skeleton) -> Sections | None:
        asked.append(row)
        return split(row)

    found = _types(_objects(graph), graph.path, other)
    if not asked:  # else they depend on what is where the other halves are
        _of_sides.append((graph.side, found))
    return found


def types_of_file(path: str, split: Split = no_split) -> DebugTypes:
    """The types of a linked program or of its separate debug file; its `tables` are link addresses, as distances from
    no symbol. `debug-information-malformed`."""
    with open(path, "rb") as file:
        rows = [section for section in ELFFile(file).iter_sections() if section.name.startswith(_NEEDED)]
        sections = {section.name: section.data() for section in rows}

    def place(section: str, offset: int) -> tuple[int, int]:
        return -1, int.from_bytes(sections.get(section, b"")[offset : offset + 8], "little")

    return _types([(sections, place)], path, split)


def _types(objects: Iterable[tuple[Sections, Place]], path: str, split: Split) -> DebugTypes:
    layouts: dict[str, list[TypeLayout]] = {}
    functions: dict[str, str] = {}
    variables: dict[str, tuple[str, str]] = {}
    signatures: dict[str, str] = {}
    tables: dict[str, tuple[int, int]] = {}
    waits: dict[str, list[Waits]] = {}
    is_whole = True
    for number, (sections, place) in enumerate(objects):
        units, all_there = _with_halves(_units(sections, path), split, path)
        is_whole &= all_there
        for unit in units:
            for name, layout in unit.layouts:
                rows = layouts.setdefault(name, [])
                if layout not in rows:
                    rows.append(layout)
            functions.update(unit.functions)
            variables.update({link: (name, unit.names.get(at, "")) for link, name, at in unit.variables})
            # The standard library comes with debug information that has no types, and what is inlined from it with one.
            told = dict(unit.signatures())
            if unit.types or any(taken != NOTHING for taken in told.values()):
                signatures.update(told)
            tables.update((name, found) for name, part, at in unit.tables() if (found := place(part, at)) is not None)
            for name, lines in unit.waits.items():
                waits.setdefault(name, []).append(Waits(number, unit.program, unit.files[name], lines))
    return DebugTypes(
        {name: frozenset(rows) for name, rows in layouts.items()},
        functions,
        variables,
        signatures,
        tables,
        {name: tuple(rows) for name, rows in waits.items()},
        is_whole,
    )


def _units(sections: Sections, path: str) -> list[TypeUnit]:
    digest = hashlib.sha256()
    for name, content in sections.items():
        digest.update(name.encode() + len(content).to_bytes(8, "little") + content)
    units = _kept.get(digest.digest())
    size = sum(map(len, sections.values()))
    return units if units is not None else _kept.put(digest.digest(), type_units(sections, path), size)


def _with_halves(units: Iterable[TypeUnit], split: Split, path: str) -> tuple[list[TypeUnit], bool]:
    """The units, of those that were split the half that has types; and whether each of these was found."""
    found, is_whole = [], True
    for unit in units:
        row = unit.skeleton
        if row is None:
            found.append(unit)
            continue
        halves = [half for half in type_units(split(row) or {}, path, True) if half.identity == row.identity]
        is_whole &= bool(halves)
        for half in halves[:1]:
            # Lines and addresses are in the program's half.
            half.program, half.addresses = row.program, row.addresses
            found.append(half)
    return found, is_whole


def _objects(graph: LinkGraph) -> Iterator[tuple[Sections, Place]]:
    """The debug sections of each object; a second section of one name begins the next object."""
    found: dict[str, SideSection] = {}
    for section in graph.side:
        if not section.name.startswith(_NEEDED):
            continue
        if section.name in found:
            yield _filled(graph, found), _place_in(found)
            found = {}
        found[section.name] = section
    yield _filled(graph, found), _place_in(found)


def _filled(graph: LinkGraph, found: Mapping[str, SideSection]) -> Sections:
    return {name: filled(graph, section) for name, section in found.items()}


def _place_in(found: Mapping[str, SideSection]) -> Place:
    def place(name: str, offset: int) -> tuple[int, int] | None:
        section = found.get(name)
        if section is not None:
            for row in np.flatnonzero(section.offset == offset).tolist():
                return int(section.target[row]), int(section.addend[row])
        return None

    return place
