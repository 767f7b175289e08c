"""Which part of which variable a symbol is, where a compiler keeps a variable in parts.

LLVM's GlobalOpt makes `pair.0`, `pair.1` of the parts of a static structure or array that are used, in the order of
their places. The numbers say nothing of which parts those are; the variable's location does: a list of addresses, each
with the size of its piece (DWARF 5, 2.6.1.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ipbp.formats.leb import uleb

_OP_ADDR, _OP_ADDRX, _OP_PIECE = 0x03, 0xA1, 0x93
_SCOPES = (
    "DW_TAG_namespace",
    "DW_TAG_subprogram",
    "DW_TAG_lexical_block",
    "DW_TAG_class_type",
    "DW_TAG_structure_type",
)
MAKER = b"clang"
"""What stands in the producer's name of each unit that has parts, in one of the sections below."""
MAKER_IS_IN = (".debug_str", ".debug_line_str", ".debug_info")


@dataclass(frozen=True, slots=True)
class Part:
    """`size` bytes at `offset` of the variable that `owner` names, scopes first. The fixup with its address is at `at`
    in the debug `section`."""

    owner: tuple[str, ...]
    offset: int
    size: int
    section: str
    at: int


def parts(dwarf: Any) -> Iterator[Part]:
    """The parts of the variables of an object's units that LLVM made. `dwarf`: pyelftools' view of its sections.
    Errors: those of pyelftools."""
    for unit in dwarf.iter_CUs():
        top = unit.get_top_DIE()
        producer = top.attributes.get("DW_AT_producer")
        if producer is not None and MAKER in producer.value:
            base = top.attributes.get("DW_AT_addr_base") or top.attributes.get("DW_AT_GNU_addr_base")
            yield from _below(top, (), base.value if base is not None else 0)


def _below(entry: Any, scope: tuple[str, ...], base: int) -> Iterator[Part]:
    for child in entry.iter_children():
        if child.tag == "DW_TAG_variable" and "DW_AT_location" in child.attributes:
            location = child.attributes["DW_AT_location"]
            if location.form == "DW_FORM_exprloc":
                yield from _of_expression(location, (*scope, _name(child)), base)
        elif child.tag in _SCOPES:
            yield from _below(child, (*scope, _name(child)), base)


def _name(entry: Any) -> str:
    for attribute in ("DW_AT_linkage_name", "DW_AT_name"):
        if attribute in entry.attributes:
            return bytes(entry.attributes[attribute].value).decode(errors="replace")
    for attribute in ("DW_AT_specification", "DW_AT_abstract_origin"):
        if attribute in entry.attributes:
            return _name(entry.get_DIE_from_attribute(attribute))
    return ""


def _of_expression(location: Any, owner: tuple[str, ...], base: int) -> Iterator[Part]:
    # Addresses with sizes, and sizes alone for parts that are nowhere; what comes after anything else is not known.
    content = bytes(location.value)
    start = int(location.offset) + _length_of_uleb(len(content))
    at = offset = 0
    while at < len(content):
        fixup = None
        if content[at] == _OP_ADDR:
            fixup, at = (".debug_info", start + at + 1), at + 9
        elif content[at] == _OP_ADDRX:
            index, at = uleb(content, at + 1)
            fixup = ".debug_addr", base + 8 * index
        if at >= len(content) or content[at] != _OP_PIECE:
            return
        size, at = uleb(content, at + 1)
        if fixup is not None:
            yield Part(owner, offset, size, *fixup)
        offset += size


def _length_of_uleb(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)
