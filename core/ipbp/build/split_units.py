"""What a unit compiled with -gsplit-dwarf is called and how it was compiled.

The program then has a skeleton of each unit only: where its code is, and the name of the `.dwo` file with the rest
(DWARF 5, 3.1.2). The file, or its copy in the program's package (`split_package`), is read when it is there and of
this very compile, which its number says; the next build writes another one in its place. Else the line table, which
is in the program, has at least the source's name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.common.utils import struct_parse
from elftools.dwarf.die import AttributeValue
from elftools.elf.elffile import ELFFile

from ipbp.build.debug_sections import has_debug_information, sections_of
from ipbp.build.split_package import Package

_DWO_NAMES = ("DW_AT_dwo_name", "DW_AT_GNU_dwo_name")
_STRX = frozenset(f"DW_FORM_strx{width}" for width in ("", "1", "2", "3", "4")) | {"DW_FORM_GNU_str_index"}
_ULEB = frozenset({"DW_FORM_strx", "DW_FORM_GNU_str_index", "DW_FORM_GNU_addr_index"})
"""Forms that pyelftools would look up in a table, or does not know; all are ULEB128 numbers."""
_OF_UNITS = ("debug_info", "debug_types", "debug_abbrev", "debug_str", "debug_str_offsets")
_OFFSETS_HEADER = 8  # of .debug_str_offsets.dwo in version 5 (DWARF 5, 7.26)
_IMPLIED = {"DW_AT_str_offsets_base": _OFFSETS_HEADER, "DW_AT_rnglists_base": 12, "DW_AT_loclists_base": 12}
"""Where a table begins that a `.dwo` file has one of: behind its section's header (DWARF 5, 7.26, 7.28, 7.29)."""


@dataclass(frozen=True, slots=True)
class SplitUnit:
    """As far as it is known, else ""."""

    name: str
    producer: str


def is_skeleton(cu: Any) -> bool:
    return any(name in cu.get_top_DIE().attributes for name in _DWO_NAMES)


def split_unit(cu: Any, directory: str, package: Package | None) -> SplitUnit:
    """Of a skeleton. `directory`: the unit's compilation directory, from which its `.dwo` file is named. `package`: of
    the program, when it has one."""
    identity = _identity(cu)
    dwarf = _split(cu, directory, package)
    found = _found(dwarf, identity) if dwarf is not None and identity is not None else None
    return found or SplitUnit(_name_in_line_table(cu, Path(_dwo_name(cu)).stem), "")


def split_sections(cu: Any, directory: str, package: Package | None) -> dict[str, bytes]:
    """The debug sections of a skeleton's other part, by the names that they have in a file that is not split (".dwo"
    left out); none when it is not at hand, or may be of another compile."""
    dwarf = _split(cu, directory, package)
    if dwarf is not None and _is_not_told_apart(dwarf, _identity(cu)):
        return {}
    found = ((name, getattr(dwarf, f"{name}_sec", None)) for name in _OF_UNITS)
    return {f".{name}": section.stream.getvalue() for name, section in found if section is not None}


def split_part(cu: Any, directory: str) -> Any:
    """pyelftools' unit of a skeleton's other part, which knows where its strings and addresses are; None when that is
    not at hand, or of a version that pyelftools does not read (GNU's, before DWARF 5)."""
    dwarf, identity = _split(cu, directory, None), _identity(cu)
    if dwarf is None or cu["version"] < 5:
        return None
    dwarf.debug_addr_sec = cu.dwarfinfo.debug_addr_sec
    unit = next(other for other in dwarf.iter_CUs() if _identity(other) == identity)
    with suppress(DWARFError):  # the places of its tables are implied
        unit.get_top_DIE()
    top = unit.get_top_DIE()
    own = {name: row.value for name, row in cu.get_top_DIE().attributes.items() if name == "DW_AT_addr_base"}
    for name, place in {**_IMPLIED, **own}.items():
        top.attributes.setdefault(name, AttributeValue(name, "DW_FORM_sec_offset", place, place, 0, 0))
    top._translate_indirect_attributes()
    return unit


def _is_not_told_apart(dwarf: Any, identity: int | None) -> bool:
    """LLVM's number of a split unit does not depend on what stands in its type units, and that of a type unit only on
    the type's name (DwarfDebug::addDwarfTypeUnitType)."""
    unit = _found(dwarf, identity) if identity is not None else None
    if unit is None or "clang" not in unit.producer:
        return False
    return dwarf.debug_types_sec is not None or any("type_signature" in other.header for other in dwarf.iter_CUs())


def _dwo_name(cu: Any) -> str:
    attributes = cu.get_top_DIE().attributes
    return next(os.fsdecode(attributes[key].value) for key in _DWO_NAMES if key in attributes)


def _split(cu: Any, directory: str, package: Package | None) -> Any:
    """pyelftools' DWARFInfo of the other part; None when there is none of this very compile."""
    identity = _identity(cu)
    if identity is None:
        return None
    return _opened(Path(directory, _dwo_name(cu)), identity) or (_packed(package, identity) if package else None)


def _identity(cu: Any) -> int | None:
    """The number that a skeleton and its `.dwo` file share: in the header, before DWARF 5 in an attribute."""
    if "dwo_id" in cu.header:
        return int(cu.header["dwo_id"])
    number = _top_attributes(cu).get("DW_AT_GNU_dwo_id")
    return number if isinstance(number, int) else None


# Of a file that is not there, or that is written anew this moment: no worse than one that was cleaned away.
_UNREADABLE = (OSError, ELFError, DWARFError, ValueError, KeyError, AssertionError)


def _opened(path: Path, identity: int) -> Any:
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            dwarf = sections_of(elf, ".dwo") if has_debug_information(elf, ".dwo") else None
            return dwarf if dwarf is not None and _found(dwarf, identity) is not None else None
    except _UNREADABLE:
        return None


def _packed(package: Package, identity: int) -> Any:
    try:
        dwarf = package.unit(identity)
        return dwarf if dwarf is not None and _found(dwarf, identity) is not None else None
    except _UNREADABLE:
        return None


def _found(dwarf: Any, identity: int | None) -> SplitUnit | None:
    for cu in dwarf.iter_CUs():
        if _identity(cu) == identity:
            row = _top_attributes(cu)
            return SplitUnit(*(_text(dwarf, cu, row.get(f"DW_AT_{key}")) for key in ("name", "producer")))
    return None


@dataclass(frozen=True, slots=True)
class _Index:
    """A string by its row in .debug_str_offsets."""

    row: int


def _top_attributes(cu: Any) -> dict[str, Any]:
    """Of the unit's entry, strings by index left as `_Index`: pyelftools looks for their base in the entry, but in a
    `.dwo` file it is implied."""
    stream, structs = cu.dwarfinfo.debug_info_sec.stream, cu.structs
    stream.seek(cu.cu_die_offset)
    code = struct_parse(structs.the_Dwarf_uleb128, stream)
    found = {}
    for name, form in cu.get_abbrev_table().get_abbrev(code).iter_attr_specs():
        if form in ("DW_FORM_implicit_const", "DW_FORM_flag_present"):
            continue
        value = struct_parse(structs.Dwarf_dw_form["DW_FORM_udata" if form in _ULEB else form], stream)
        found[name] = _Index(value) if form in _STRX else value
    return found


def _text(dwarf: Any, cu: Any, value: Any) -> str:
    if isinstance(value, _Index):
        base = _OFFSETS_HEADER if cu["version"] >= 5 else 0
        place = struct_parse(cu.structs.the_Dwarf_offset, dwarf.debug_str_offsets_sec.stream, base + 4 * value.row)
        value = dwarf.get_string_from_table(place)
    return os.fsdecode(value) if isinstance(value, bytes) else ""


def _name_in_line_table(cu: Any, dwo: str) -> str:
    """Number 0 of the files in the unit's line table is its source in version 5 (DWARF 5, 6.2.4). Before, any of them
    may be; then the one that the `.dwo` file is named after is believed, "" when there is none."""
    program = cu.dwarfinfo.line_program_for_CU(cu)
    if program is None:
        return ""
    entries, folders = list(program.header.file_entry), list(_folders(program.header))
    if cu["version"] < 5:
        entries = [entry for entry in entries if dwo.endswith(Path(os.fsdecode(entry.name)).stem)]
        folders = ["", *folders]
    for entry in entries[:1]:
        folder = folders[entry.dir_index] if entry.dir_index < len(folders) else ""
        return os.path.join(folder, os.fsdecode(entry.name))
    return ""


def _folders(header: Any) -> Iterator[str]:
    for entry in header.include_directory:
        yield os.fsdecode(entry if isinstance(entry, bytes) else entry.DW_LNCT_path)
