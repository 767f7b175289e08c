"""The `.dwp` file of a program: the `.dwo` files of all of its units, put together by dwp(1) or llvm-dwp.

A hash table in it leads from the number that a skeleton and its split unit share to the unit's part of each section
(DWARF 5, 7.3.5; version 2 is what GCC and LLVM write for DWARF 4). Cut out, these parts are what the `.dwo` file was;
the strings alone are everybody's. It lies beside the program and has its name (GDB manual, "Separate Debug Files").
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.elffile import ELFFile

from ipbp.build.debug_sections import section_content, sections_from

_INDEX = ".debug_cu_index"
_VERSIONS = (2, 5)
_SECTIONS = {1: "debug_info", 3: "debug_abbrev", 6: "debug_str_offsets"}
"""Of the columns of the index those that have a unit's name and producer; the same in both versions."""
_SHARED = "debug_str"


def package_of(debug_file: Path) -> Path | None:
    """Where the package of a program is, or of the separate file with its debug information; None when there is none.
    `debug_file` may be a link of the kernel's to a file that was replaced."""
    path = os.path.realpath(debug_file).removesuffix(" (deleted)")
    places = (Path(f"{name}.dwp") for name in dict.fromkeys((path, path.removesuffix(".debug"))))
    return next((place for place in places if place.is_file()), None)


@dataclass(frozen=True)
class Package:
    """What is read of it is read when it is asked for: it may be larger than the program."""

    path: Path

    def unit(self, identity: int) -> Any:
        """pyelftools' DWARFInfo of one split unit, as if it were read from its `.dwo` file; None when the package has
        no unit of this number. Errors: those of pyelftools, OSError and ValueError."""
        found = self.sections(identity)
        if found is None:
            return None
        with self.path.open("rb") as file:
            return sections_from(found, ELFFile(file))

    def sections(self, identity: int) -> dict[str, bytes | None] | None:
        """The sections of one split unit, by their names without a dot and `.dwo`, or None. Errors: as of `unit`."""
        parts = self._parts.get(identity)
        if parts is None:
            return None
        with self.path.open("rb") as file:
            elf = ELFFile(file)
            found = {name: section_content(elf, f"{name}.dwo", *part) for name, part in parts.items()}
        return {**found, _SHARED: self._strings}

    @cached_property
    def _strings(self) -> bytes | None:
        with self.path.open("rb") as file:
            return section_content(ELFFile(file), f"{_SHARED}.dwo")

    @cached_property
    def _parts(self) -> Mapping[int, Mapping[str, tuple[int, int]]]:
        """Number of a unit -> name of a section -> (offset, size) of its part there."""
        try:
            with self.path.open("rb") as file:
                elf = ELFFile(file)
                section = elf.get_section_by_name(_INDEX)
                return _rows(section.data()) if section is not None else {}
        except (OSError, ELFError, DWARFError, ValueError):
            return {}  # being written anew: as good as none


def _rows(index: bytes) -> dict[int, dict[str, tuple[int, int]]]:
    """DWARF 5, 7.3.5.3: a header of four words, the numbers by their hash, the row of each, then a table of offsets
    with a row of section identifiers on top, and a table of sizes."""
    version, columns, units, slots = (_word(index, 4 * at) for at in range(4))
    # Version 5 has two bytes for the version, and two of padding.
    if version & 0xFFFF not in _VERSIONS:
        return {}
    rows_at = 16 + 8 * slots
    table = rows_at + 4 * slots
    found = {}
    for slot in range(slots):
        row = _word(index, rows_at + 4 * slot)
        if not 0 < row <= units:
            continue
        parts = {}
        for column in range(columns):
            offset = _word(index, table + 4 * (row * columns + column))
            size = _word(index, table + 4 * ((units + row) * columns + column))
            parts[_word(index, table + 4 * column)] = (offset, size)
        number = int.from_bytes(index[16 + 8 * slot : 24 + 8 * slot], "little")
        found[number] = {name: parts[key] for key, name in _SECTIONS.items() if key in parts}
    return found


def _word(index: bytes, at: int) -> int:
    if at + 4 > len(index):
        raise ValueError("the index of a package does not end inside it")
    return int.from_bytes(index[at : at + 4], "little")
