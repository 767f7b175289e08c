"""The translation units of a program, as its debug information names them.

They say which entries of a compilation database belong to this program, and, with gcc, how each was compiled: gcc
writes the options that shape the code into DW_AT_producer (DWARF 5, 3.1.1; GCC manual, -grecord-gcc-switches).
Only the top entry of each unit is read; the answer for a program is kept on disk, since a large one takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from elftools.common.exceptions import DWARFError, ELFError, ELFParseError
from elftools.elf.elffile import ELFFile

from ipbp.build.places import cache_folder
from ipbp.errors import IpbpError

_FORMAT = 2  # of the kept answers; a new number forgets the old ones


@dataclass(frozen=True, slots=True)
class SourceUnit:
    """`source`: absolute as far as the debug information says (a prefix map can hide the true folder). `name`: as
    given to the compiler. `directory`: the compiler's working directory. `producer`: compiler and options."""

    source: Path
    name: str
    directory: Path
    producer: str


def source_units(executable: Path) -> tuple[SourceUnit, ...]:
    """The units of a program or library, in its order; none when it has no debug information, nor a debug file of
    its own (below /usr/lib/debug by build id, or by .gnu_debuglink). `debug-information-malformed`."""
    try:
        with executable.open("rb") as file:
            path = _with_debug_information(ELFFile(file), executable)
            if path is None:
                return ()
            note = cache_folder("units") / f"{_key(ELFFile(file), path)}.json"
        kept = _kept(note)
        if kept is not None:
            return kept
        with path.open("rb") as file:
            units = tuple(_units(file))
    except OSError as error:
        raise IpbpError(
            "program-unreadable", f"{executable}: cannot be read: {error.strerror}", "Check its permissions."
        ) from error
    except (
        ELFError,
        ELFParseError,
        DWARFError,
        KeyError,
        ValueError,
        AssertionError,
        IndexError,
        OverflowError,
    ) as error:
        # pyelftools checks little: a damaged file ends in whichever of these comes first.
        raise IpbpError(
            "debug-information-malformed",
            f"{executable}: its debug information cannot be read: {type(error).__name__}: {error}",
            "Rebuild the program, or give ipbp a compile_commands.json with --compile-commands.",
        ) from error
    _keep(note, units)
    return units


def include_folders(executable: Path) -> dict[SourceUnit, tuple[Path, ...]]:
    """For each unit the folders of the headers that it really used, as its line table lists them (DWARF 5, 6.2.4),
    absolute, without the unit's own folder and the system's. For a program whose `source_units` could be read."""
    with executable.open("rb") as file:
        path = _with_debug_information(ELFFile(file), executable)
    if path is None:
        return {}
    found = {}
    with path.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        for cu in dwarf.iter_CUs():
            unit = _unit(cu)
            program = dwarf.line_program_for_CU(cu) if unit is not None else None
            if unit is not None and program is not None:
                names = (_text(_folder_name(entry)) for entry in program.header.include_directory)
                folders = dict.fromkeys(Path(os.path.normpath(unit.directory / name)) for name in names)
                unwanted = {unit.directory, unit.source.parent}
                found[unit] = tuple(f for f in folders if f not in unwanted and not _is_system(f))
    return found


def _folder_name(entry: Any) -> Any:
    # Version 5 tables have records, older ones plain names.
    return entry if isinstance(entry, bytes) else entry.DW_LNCT_path


def _is_system(folder: Path) -> bool:
    text = str(folder)
    return text.startswith(("/usr/include", "/usr/lib")) or "/lib/gcc/" in text or "/lib/clang/" in text


def _units(file: BinaryIO) -> Iterator[SourceUnit]:
    for cu in ELFFile(file).get_dwarf_info().iter_CUs():
        unit = _unit(cu)
        if unit is not None:
            yield unit


def _unit(cu: Any) -> SourceUnit | None:
    top = cu.get_top_DIE()
    if top.tag != "DW_TAG_compile_unit":
        return None  # a shared part of several units, or the skeleton of one that is in another file
    attributes = top.attributes
    name, directory, producer = (
        _text(attributes[key].value) if key in attributes else ""
        for key in ("DW_AT_name", "DW_AT_comp_dir", "DW_AT_producer")
    )
    if not name or name.startswith("<"):
        return None  # "<artificial>": made by the link-time optimiser
    return SourceUnit(Path(os.path.normpath(os.path.join(directory, name))), name, Path(directory), producer)


def _text(value: Any) -> str:
    # An offset into a supplementary file (dwz) comes as a number: that name is not known.
    return os.fsdecode(value) if isinstance(value, bytes) else ""


def _with_debug_information(elf: ELFFile, executable: Path) -> Path | None:
    if elf.get_section_by_name(".debug_info") or elf.get_section_by_name(".zdebug_info"):
        return executable
    for path in _debug_files(elf, executable):
        if path.is_file():
            return path
    return None


def _debug_files(elf: ELFFile, executable: Path) -> Iterator[Path]:
    """Where a separate debug file would be (GDB manual, "Separate Debug Files")."""
    identity = _build_id(elf)
    if len(identity) > 2:
        yield Path("/usr/lib/debug/.build-id", identity[:2], f"{identity[2:]}.debug")
    link = elf.get_section_by_name(".gnu_debuglink")
    if link is not None:
        name = os.path.basename(os.fsdecode(link.data().split(b"\0", 1)[0]))
        if name and name != executable.name:
            yield executable.parent / name
        yield executable.parent / ".debug" / name
        yield Path("/usr/lib/debug", *executable.parent.parts[1:], name)


def _build_id(elf: ELFFile) -> str:
    section = elf.get_section_by_name(".note.gnu.build-id")
    if section is None:
        return ""
    content: bytes = section.data()
    return content[16:].hex()  # behind three sizes and the name "GNU\0" (gABI, "Note Section")


def _key(elf: ELFFile, path: Path) -> str:
    """Names the content: by the build id where there is one, else by all bytes. The size tells a stripped copy."""
    identity = _build_id(elf)
    with path.open("rb") as file:
        if not identity:
            identity = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    return hashlib.sha256(f"{_FORMAT} {identity} {size}".encode()).hexdigest()


def _kept(note: Path) -> tuple[SourceUnit, ...] | None:
    try:
        rows = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    return tuple(SourceUnit(Path(row[0]), row[1], Path(row[2]), row[3]) for row in rows)


def _keep(note: Path, units: tuple[SourceUnit, ...]) -> None:
    temporary = note.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps([[str(u.source), u.name, str(u.directory), u.producer] for u in units]))
    os.replace(temporary, note)
