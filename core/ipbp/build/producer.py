"""The translation units of a program, as its debug information names them.

They say which entries of a compilation database belong to this program, and, with gcc, how each was compiled: gcc
writes the options that shape the code into DW_AT_producer (DWARF 5, 3.1.1; GCC manual, -grecord-gcc-switches).
Only the top entry of each unit is read; the answer for a program is kept on disk, since a large one takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError, ELFParseError

from ipbp.build.debug_container import opened
from ipbp.build.debug_sections import build_id, debug_information, has_debug_information
from ipbp.build.notes import write_whole
from ipbp.build.places import cache_folder
from ipbp.build.split_package import Package, package_of
from ipbp.build.split_units import is_skeleton, split_unit
from ipbp.errors import IpbpError
from ipbp.kept import Kept

_FORMAT = 4  # of the kept answers; a new number forgets the old ones


@dataclass(frozen=True, slots=True)
class SourceUnit:
    """`source`: absolute as far as the debug information says (a prefix map can hide the true folder). `name`: as
    given to the compiler. `directory`: the compiler's working directory. `producer`: compiler and options."""

    source: Path
    name: str
    directory: Path
    producer: str


def source_units(debug_file: Path) -> tuple[SourceUnit, ...]:
    """The units of a program or library, in its order; none when it has no debug information. `debug_file`: the
    program itself, or the separate file with what was stripped off. `debug-information-malformed`."""
    try:
        package = package_of(debug_file)
        key = _key(debug_file, tuple(_state(path) for path in (debug_file, package) if path is not None))
        if not key:
            return ()
        note = cache_folder("units") / f"{key}.json"
        kept = _kept(note)
        if kept is not None:
            return kept
        with debug_file.open("rb") as file:
            elf = opened(file)
            units = tuple(_units(debug_information(elf, debug_file), _package(debug_file)))
    except OSError as error:
        raise IpbpError(
            "program-unreadable", f"{debug_file}: cannot be read: {error.strerror}", "Check its permissions."
        ) from error
    except _DAMAGE as error:
        raise _malformed(debug_file, error) from error
    _keep(note, units)
    return units


def units_of(dwarf: Any, path: str) -> tuple[SourceUnit, ...]:
    """The units of debug information that was read already, in its order. `path`: for messages.
    `debug-information-malformed`."""
    try:
        return tuple(_units(dwarf, None))
    except _DAMAGE as error:
        raise _malformed(Path(path), error) from error


# pyelftools checks little: a damaged file ends in whichever of these comes first.
_DAMAGE = (
    *(ELFError, ELFParseError, DWARFError, KeyError, ValueError, AssertionError, IndexError, OverflowError),
    *(AttributeError, TypeError, MemoryError, RecursionError),
)


def _malformed(debug_file: Path, error: BaseException) -> IpbpError:
    return IpbpError(
        "debug-information-malformed",
        f"{debug_file}: its debug information cannot be read: {type(error).__name__}: {error}",
        "Rebuild the program, or give ipbp a compile_commands.json with --compile-commands.",
    )


@contextmanager
def _readable(debug_file: Path) -> Iterator[tuple[Any, Package | None] | None]:
    """Its debug information with that of its package; None when it has none. `debug-information-malformed`."""
    try:
        with debug_file.open("rb") as file:
            elf = opened(file)
            known = has_debug_information(elf)
            yield (debug_information(elf, debug_file), _package(debug_file)) if known else None
    except (*_DAMAGE, OSError) as error:  # a place before the beginning of the file
        raise _malformed(debug_file, error) from error


def include_folders(debug_file: Path) -> dict[SourceUnit, tuple[Path, ...]]:
    """For each unit the folders of the headers that it really used, as its line table lists them (DWARF 5, 6.2.4),
    absolute, without the unit's own folder and the system's. Of a file that is as it was the last answer.
    `debug-information-malformed`."""
    try:
        package = package_of(debug_file)
        key = _key(debug_file, tuple(_state(path) for path in (debug_file, package) if path is not None))
    except (*_DAMAGE, OSError) as error:
        raise _malformed(debug_file, error) from error
    known = _folders.get(key)
    return _folders.put(key, _include_folders(debug_file), 1) if known is None else known


_folders: Kept[str, dict[SourceUnit, tuple[Path, ...]]] = Kept(8)


def _include_folders(debug_file: Path) -> dict[SourceUnit, tuple[Path, ...]]:
    found = {}
    with _readable(debug_file) as readable:
        if readable is None:
            return {}
        dwarf, package = readable
        for cu in dwarf.iter_CUs():
            unit = _unit(cu, package)
            program = dwarf.line_program_for_CU(cu) if unit is not None else None
            if unit is not None and program is not None:
                names = (_text(_folder_name(entry)) for entry in program.header.include_directory)
                folders = dict.fromkeys(Path(os.path.normpath(unit.directory / name)) for name in names)
                unwanted = {unit.directory, unit.source.parent}
                found[unit] = tuple(f for f in folders if f not in unwanted and not _is_system(f))
    return found


def places_of(debug_file: Path, units: Collection[SourceUnit]) -> list[tuple[int, int]]:
    """Half-open ranges of link addresses: the code of these units (DWARF 5, 2.17), and the first byte of each of their
    variables (2.6.1). `debug-information-malformed`."""
    found = []
    with _readable(debug_file) as readable:
        if readable is None:
            return []
        dwarf, package = readable
        for cu in dwarf.iter_CUs():
            if _unit(cu, package) in units:
                found += _ranges(dwarf, cu)
                found += [(place, place + 1) for place in _variables(cu)]
    return found


def units_at(debug_file: Path, addresses: Collection[int]) -> dict[int, list[SourceUnit]]:
    """For each link address the units that have code there; more than one where a linker folded functions.
    `debug-information-malformed`."""
    found: dict[int, list[SourceUnit]] = {address: [] for address in addresses}
    with _readable(debug_file) as readable:
        if readable is None:
            return found
        dwarf, package = readable
        for cu in dwarf.iter_CUs():
            unit = _unit(cu, package)
            for start, end in _ranges(dwarf, cu) if unit is not None else ():
                for address in addresses:
                    if unit is not None and start <= address < end and unit not in found[address]:
                        found[address].append(unit)
    return found


def _variables(cu: Any) -> Iterator[int]:
    for entry in cu.iter_DIEs():
        where = entry.attributes.get("DW_AT_location") if entry.tag == "DW_TAG_variable" else None
        if where is not None and where.form == "DW_FORM_exprloc" and len(where.value) == 9 and where.value[0] == 3:
            yield int.from_bytes(bytes(where.value[1:]), "little")  # DW_OP_addr


def _ranges(dwarf: Any, cu: Any) -> list[tuple[int, int]]:
    attributes = cu.get_top_DIE().attributes
    base = attributes["DW_AT_low_pc"].value if "DW_AT_low_pc" in attributes else 0
    if "DW_AT_high_pc" in attributes:
        high = attributes["DW_AT_high_pc"]
        return [(base, high.value if high.form == "DW_FORM_addr" else base + high.value)]
    if "DW_AT_ranges" not in attributes:
        return []
    ranges = []
    place = attributes["DW_AT_ranges"].value
    for entry in dwarf.range_lists().get_range_list_at_offset(place, cu):
        if hasattr(entry, "base_address"):
            base = entry.base_address
        else:
            start = 0 if entry.is_absolute else base
            ranges.append((start + entry.begin_offset, start + entry.end_offset))
    return ranges


def _folder_name(entry: Any) -> Any:
    # Version 5 tables have records, older ones plain names.
    return entry if isinstance(entry, bytes) else entry.DW_LNCT_path


def _is_system(folder: Path) -> bool:
    text = str(folder)
    return text.startswith(("/usr/include", "/usr/lib")) or "/lib/gcc/" in text or "/lib/clang/" in text


def _package(debug_file: Path) -> Package | None:
    path = package_of(debug_file)
    return Package(path) if path is not None else None


def _units(dwarf: Any, package: Package | None) -> Iterator[SourceUnit]:
    for cu in dwarf.iter_CUs():
        unit = _unit(cu, package)
        if unit is not None:
            yield unit


def _unit(cu: Any, package: Package | None) -> SourceUnit | None:
    top = cu.get_top_DIE()
    if top.tag not in ("DW_TAG_compile_unit", "DW_TAG_skeleton_unit"):
        return None  # a shared part of several units
    attributes = top.attributes
    name, directory, producer = (
        _text(attributes[key].value) if key in attributes else ""
        for key in ("DW_AT_name", "DW_AT_comp_dir", "DW_AT_producer")
    )
    if is_skeleton(cu):
        found = split_unit(cu, directory, package)
        name, producer = found.name, found.producer
    if not name or name.startswith("<"):
        return None  # "<artificial>": made by the link-time optimiser
    return SourceUnit(Path(os.path.normpath(os.path.join(directory, name))), name, Path(directory), producer)


def _text(value: Any) -> str:
    # An offset into a supplementary file (dwz) comes as a number: that name is not known.
    return os.fsdecode(value) if isinstance(value, bytes) else ""


def _state(path: Path) -> tuple[int, ...]:
    """What tells a file from another one at this path."""
    state = path.stat()
    return state.st_size, state.st_dev, state.st_ino, state.st_mtime_ns


@lru_cache(maxsize=64)
def _key(path: Path, states: tuple[tuple[int, ...], ...]) -> str:
    """Names the content: by the build id where there is one, else by all bytes; "" without debug information. The size
    tells a stripped copy; that of a package, whether there is one. `states`: of the file and of its package."""
    with path.open("rb") as file:
        elf = opened(file)
        if not has_debug_information(elf):
            return ""
        identity = build_id(elf)
        if not identity:
            file.seek(0)
            identity = hashlib.file_digest(file, "sha256").hexdigest()
    size, packed = states[0][0], states[1][0] if len(states) > 1 else 0
    return hashlib.sha256(f"{_FORMAT} {identity} {size} {packed}".encode()).hexdigest()


def _kept(note: Path) -> tuple[SourceUnit, ...] | None:
    try:
        rows = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    return tuple(SourceUnit(Path(row[0]), row[1], Path(row[2]), row[3]) for row in rows)


def _keep(note: Path, units: tuple[SourceUnit, ...]) -> None:
    write_whole(note, json.dumps([[str(u.source), u.name, str(u.directory), u.producer] for u in units]))
