"""The layouts of a C or C++ unit on both sides of an edit. What was read once is kept as long as the engine lives: the
new side of one patch is the old side of the next."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError

from ipbp.build.debug_container import opened
from ipbp.build.debug_sections import sections_from, sections_of
from ipbp.build.split_package import Package, package_of
from ipbp.build.split_units import is_skeleton, split_sections, split_unit
from ipbp.formats.debug_entries import Sections
from ipbp.formats.debug_filled import filled
from ipbp.formats.debug_layouts import Chosen, layouts
from ipbp.graph.image import LoadedImage
from ipbp.graph.layouts import UnitTypes
from ipbp.graph.model import LinkGraph, SideSection
from ipbp.kept import Kept, of_the_last

_NEEDED = (".debug_info", ".debug_types", ".debug_abbrev", ".debug_str", ".debug_line_str", ".debug_str_offsets")
_kept: Kept[object, UnitTypes] = Kept(64)


def _side(graph: LinkGraph) -> tuple[SideSection, ...]:
    """What two graphs of one object have in common: the new side of one patch is the old side of the next."""
    return graph.side


@of_the_last(4, _side)
def types_of_object(graph: LinkGraph) -> UnitTypes:
    """The types of a unit's object. Errors: `debug-information-malformed`."""
    sections = described(graph)
    digest = hashlib.sha256()
    for name, content in sections.items():
        digest.update(name.encode() + len(content).to_bytes(8, "little") + content)
    return _once(digest.digest(), lambda: _read([sections], graph.path, lambda: _split_of_object(graph)))


@of_the_last(3, _side)  # they are large; the old side may be asked about after the new one
def described(graph: LinkGraph) -> dict[str, bytes]:
    """The debug sections that say what types and functions an object has."""
    return sections_of_object(graph, _NEEDED)


def sections_of_object(graph: LinkGraph, names: Iterable[str] = ()) -> dict[str, bytes]:
    """The debug sections of these names, of all for none."""
    sections: dict[str, bytes] = {}
    for section in graph.side:
        if section.name in names or (not names and section.name.startswith(".debug_")):
            # Each type unit is a section of its own, in a COMDAT group (DWARF 5, E.2).
            sections[section.name] = sections.get(section.name, b"") + filled(graph, section)
    return sections


def types_of_image(image: LoadedImage, source: str) -> UnitTypes:
    """The types of those units of a loaded image whose sources have the base name `source`."""
    path = image.debug_file or image.file
    state = os.stat(path)

    def read() -> UnitTypes:
        debug, sections = _opened(path, _NEEDED)
        package = package_of(Path(path))
        return _read(
            [sections],
            path,
            lambda: _split(debug, Package(package) if package is not None else None, source),
            lambda name: Path(name).name == source,
        )

    return _once((path, state.st_mtime_ns, state.st_ino, source), read)


def sections_of_image(image: LoadedImage, names: Iterable[str]) -> dict[str, bytes]:
    """The debug sections of these names, of its debug file where it has one."""
    return _opened(image.debug_file or image.file, names)[1]


def _opened(path: str, names: Iterable[str]) -> tuple[Any, dict[str, bytes]]:
    with open(path, "rb") as file:
        debug = sections_of(opened(file))
    found = ((name, getattr(debug, f"{name[1:]}_sec")) for name in names)
    return debug, {name: section.stream.getvalue() for name, section in found if section is not None}


def _read(
    plain: Iterable[Sections], path: str, split: Callable[[], Iterable[Sections]], chosen: Chosen = lambda _name: True
) -> UnitTypes:
    """What the unit says itself; else, when it is a skeleton, what its other part says."""
    found = layouts(plain, path, chosen)
    if found.is_described:
        return found
    try:
        parts = list(split())
    except (DWARFError, KeyError, ValueError, AssertionError, IndexError):
        return replace(found, is_lost=True)
    whole = layouts([part for part in parts if part], path, chosen) if any(parts) else found
    is_here = all(parts)
    return replace(whole, is_described=whole.is_described and is_here, is_lost=whole.is_lost or not is_here)


def _split_of_object(graph: LinkGraph) -> Iterator[Sections]:
    yield from _split(sections_from({name[1:]: content for name, content in sections_of_object(graph).items()}), None)


def _split(debug: Any, package: Package | None, source: str = "") -> Iterator[Sections]:
    """The other parts of skeletons, of those whose source has this base name where one is given."""
    for cu in debug.iter_CUs():
        if is_skeleton(cu):
            directory = cu.get_top_DIE().attributes.get("DW_AT_comp_dir")
            folder = os.fsdecode(directory.value) if directory is not None else ""
            if not source or Path(split_unit(cu, folder, package).name).name == source:
                yield split_sections(cu, folder, package)


def forget() -> None:
    """What was read is read again when it is asked for next."""
    _kept.clear()


def _once(key: object, read: Callable[[], UnitTypes]) -> UnitTypes:
    known = _kept.get(key)
    return known if known is not None else _kept.put(key, read(), 1)


def file_names(graph: LinkGraph) -> Iterator[tuple[int, str]]:
    """The numbers and base names of the files that an object's entries are declared in; none where its line table
    cannot be read."""
    sections = sections_of_object(graph)
    try:
        for cu in sections_from({name[1:]: content for name, content in sections.items()}).iter_CUs():
            program = cu.dwarfinfo.line_program_for_CU(cu)
            if program is not None:
                first = 0 if program["version"] >= 5 else 1  # DWARF 5, 6.2.4
                for number, entry in enumerate(program["file_entry"], first):
                    yield number, os.path.basename(os.fsdecode(entry.name))
                return
    except (ELFError, DWARFError, KeyError, ValueError, AssertionError, IndexError):
        return
