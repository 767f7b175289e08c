"""Which part of which variable a symbol is, where a compiler keeps a variable in parts.

LLVM's GlobalOpt makes `pair.0`, `pair.1` of the parts of a static structure or array that are used, in the order of
their places. The numbers say nothing of which parts those are; the variable's location does: a list of addresses, each
with the size of its piece (DWARF 5, 2.6.1.2). And it makes one byte, `mode.b`, of a variable that only ever has its
first value or one other: which values these are stands in the code alone, and in operations behind the address, by
which a debugger computes the value (2.6.1.1.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ipbp.graph.leb import uleb

_OP_ADDR, _OP_ADDRX, _OP_PIECE = 0x03, 0xA1, 0x93
_PLAIN = frozenset({0x06, 0x1C, 0x1E, 0x22, 0x9F, *range(0x30, 0x50)})  # deref, minus, mul, plus, stack_value, literals
_WITH_BYTES = {
    0x94: 1,
    0x08: 1,
    0x09: 1,
    0x0A: 2,
    0x0B: 2,
    0x0C: 4,
    0x0D: 4,
    0x0E: 8,
    0x0F: 8,
}  # deref_size, const1u...
_WITH_LEB = frozenset({0x10, 0x11, 0x23})  # constu, consts, plus_uconst
_SCOPES = (
    "DW_TAG_namespace",
    "DW_TAG_subprogram",
    "DW_TAG_lexical_block",
    "DW_TAG_class_type",
    "DW_TAG_structure_type",
)
MAKER = b"clang"
"""What stands in the producer's name of each unit that has parts, in one of the sections below if it is not split."""
MAKER_IS_IN = (".debug_str", ".debug_line_str", ".debug_info")


@dataclass(frozen=True, slots=True)
class Part:
    """`size` bytes at `offset` of the variable that `owner` names, scopes first; 0 for all of it. The fixup with its
    address is at `at` in the debug `section`. `meaning`: operations that make the value of what is there, none where it
    is the value."""

    owner: tuple[str, ...]
    offset: int
    size: int
    section: str
    at: int
    meaning: bytes = b""


def parts(dwarf: Any, split: Callable[[Any], Any]) -> Iterator[Part]:
    """The parts of the variables of an object's units that LLVM made, and the variables that are whole. `dwarf`:
    pyelftools' view of its sections, `split`: of a unit the one that it stands for, None for none. Errors: those of
    pyelftools."""
    for unit in dwarf.iter_CUs():
        own = unit.get_top_DIE().attributes
        top = (split(unit) or unit).get_top_DIE()
        producer = top.attributes.get("DW_AT_producer")
        if producer is not None and MAKER in producer.value:
            base = own.get("DW_AT_addr_base") or own.get("DW_AT_GNU_addr_base")
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
    content = bytes(location.value)
    start = int(location.offset) + _length_of_uleb(len(content))
    for piece in pieces(content):
        if piece.operation == _OP_ADDR:
            yield Part(owner, piece.offset, piece.size, ".debug_info", start + piece.at + 1, piece.meaning)
        elif piece.operation == _OP_ADDRX:
            place = base + 8 * uleb(content, piece.at + 1)[0]
            yield Part(owner, piece.offset, piece.size, ".debug_addr", place, piece.meaning)


@dataclass(frozen=True, slots=True)
class Piece:
    """Of a location. `operation`: which pushes the address, and stands `at`; 0 for what is nowhere. The rest is as in
    `Part`."""

    operation: int
    at: int
    offset: int
    size: int
    meaning: bytes


def pieces(content: bytes) -> Iterator[Piece]:
    """The pieces of a variable of static storage: addresses with sizes, and sizes alone. What comes after anything else
    is not known."""
    at = offset = 0
    while at < len(content):
        operation, start = content[at], at
        if operation == _OP_ADDR:
            at += 9
        elif operation == _OP_ADDRX:
            _, at = uleb(content, at + 1)
        else:
            operation = 0
        end = _behind_operations(content, at)
        meaning, size, at = content[at:end], 0, end
        if at < len(content):
            if content[at] != _OP_PIECE:
                return
            size, at = uleb(content, at + 1)
        yield Piece(operation, start, offset, size, meaning)
        offset += size


def _behind_operations(content: bytes, at: int) -> int:
    """Where the operations that compute a value end, or what is none of them begins."""
    while at < len(content):
        operation = content[at]
        if operation in _PLAIN:
            at += 1
        elif operation in _WITH_BYTES:
            at += 1 + _WITH_BYTES[operation]
        elif operation in _WITH_LEB:
            _, at = uleb(content, at + 1)
        else:
            return at
    return min(at, len(content))


def _length_of_uleb(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)
