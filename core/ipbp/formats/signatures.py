"""What functions take and return, as the debug information of an object or a program says it (DWARF 5, 3.3, 5).

Written as text that is equal when a caller that was compiled for the one may call the other: names of types behind
typedefs, the size of a structure that is passed by value, no qualifiers.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError, ELFParseError
from elftools.elf.elffile import ELFFile

_PEELED = (
    "DW_TAG_typedef",
    "DW_TAG_const_type",
    "DW_TAG_volatile_type",
    "DW_TAG_restrict_type",
    "DW_TAG_atomic_type",
)
_KEYWORD = {
    "DW_TAG_structure_type": "struct",
    "DW_TAG_union_type": "union",
    "DW_TAG_enumeration_type": "enum",
    "DW_TAG_class_type": "class",
}
_DEEPEST = 8


def signatures(content: bytes, names: Collection[str], unit: str = "") -> dict[str, str]:
    """By name the signature of those global C functions that the file defines and describes; {} where its debug
    information cannot be read. `unit`: base name of the only unit to look at."""
    found: dict[str, str] = {}
    try:
        elf = ELFFile(io.BytesIO(content))
        if not elf.get_section_by_name(".debug_info") and not elf.get_section_by_name(".zdebug_info"):
            return {}
        for cu in elf.get_dwarf_info(follow_links=False).iter_CUs():
            top = cu.get_top_DIE()
            if unit and Path(_name(top)).name != unit:
                continue
            for die in top.iter_children():
                if die.tag == "DW_TAG_subprogram" and "DW_AT_declaration" not in die.attributes:
                    name = _name(die)
                    if name in names and "DW_AT_external" in die.attributes:
                        found.setdefault(name, _signature(die))
    except (ELFError, ELFParseError, DWARFError, KeyError, ValueError, AssertionError, IndexError, OverflowError):
        return {}
    return found


def _signature(die: Any) -> str:
    taken = []
    for child in die.iter_children():
        if child.tag == "DW_TAG_formal_parameter":
            taken.append(_type(child))
        elif child.tag == "DW_TAG_unspecified_parameters":
            taken.append("...")
    return f"{_type(die)} ({', '.join(taken) or 'void'})"


def _type(die: Any, by_value: bool = True, depth: int = 0) -> str:
    if "DW_AT_type" not in die.attributes:
        return "void"
    die = die.get_DIE_from_attribute("DW_AT_type")
    if depth > _DEEPEST:
        return "..."
    if die.tag in _PEELED:
        return _type(die, by_value, depth + 1)
    if die.tag in ("DW_TAG_pointer_type", "DW_TAG_array_type"):
        return f"{_type(die, False, depth + 1)} *"
    if die.tag == "DW_TAG_subroutine_type":
        return "function"
    if die.tag in _KEYWORD:
        size = die.attributes.get("DW_AT_byte_size")
        shown = f" of {size.value} bytes" if by_value and size and die.tag != "DW_TAG_enumeration_type" else ""
        return f"{_KEYWORD[die.tag]} {_name(die)}{shown}"
    return _name(die)


def _name(die: Any) -> str:
    value = die.attributes["DW_AT_name"].value if "DW_AT_name" in die.attributes else b""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
