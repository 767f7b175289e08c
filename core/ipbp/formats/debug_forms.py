"""How long the values in debug information are and what they say, by their form (DWARF 5, 7.5.6), in 32-bit DWARF on a
machine with 8-byte addresses."""

from __future__ import annotations

from collections.abc import Iterator

from ipbp.formats.debug_abbreviations import IMPLICIT_CONST
from ipbp.graph.leb import sleb, uleb

FIXED = {
    form: size
    for size, forms in (
        (0, (0x19, 0x21)),  # flag_present, implicit_const
        (1, (0x0B, 0x0C, 0x11, 0x25, 0x29)),  # data1, flag, ref1, strx1, addrx1
        (2, (0x05, 0x12, 0x26, 0x2A)),  # data2, ref2, strx2, addrx2
        (3, (0x27, 0x2B)),  # strx3, addrx3
        (4, (0x06, 0x0E, 0x10, 0x13, 0x17, 0x1C, 0x1D, 0x1F, 0x28, 0x2C)),  # data4, strp, ref_addr, ref4, and others
        (4, (0x1F20, 0x1F21)),  # GNU_ref_alt, GNU_strp_alt
        (8, (0x01, 0x07, 0x14, 0x20)),  # addr, data8, ref8, ref_sig8
        (16, (0x1E,)),  # data16
    )
    for form in forms
}
"""Bytes of the forms of a fixed length."""
UDATA, SDATA, STRING, FLAG_PRESENT, STRP, LINE_STRP = 0x0F, 0x0D, 0x08, 0x19, 0x0E, 0x1F
LEB = frozenset({SDATA, UDATA, 0x15, 0x1A, 0x1B, 0x22, 0x23, 0x1F01, 0x1F02})
STRX = frozenset({0x1A, 0x25, 0x26, 0x27, 0x28, 0x1F02})
BLOCKS = {0x03: 2, 0x04: 4, 0x0A: 1}
"""block2, block4, block1: the width of their length."""
LEB_BLOCKS = frozenset({0x09, 0x18})
"""block, exprloc"""
ANY_BLOCK = LEB_BLOCKS | BLOCKS.keys()
REF4, REF_SIG8 = 0x13, 0x20
LOCAL_REFERENCES = frozenset({0x11, 0x12, 0x13, 0x14, 0x15})
"""Counted from the start of the unit."""
Forms = tuple[tuple[int, int, int], ...]
"""Of an abbreviation: (attribute, form, the value if it stands there)."""


def varying(content: bytes, form: int, place: int) -> tuple[int, int]:
    """A value of varying length, and where it ends; of a text or a block where it begins. Errors: ValueError for a form
    that is not known."""
    if form in LEB:
        return sleb(content, place) if form == SDATA else uleb(content, place)
    if form == STRING:
        return place, content.index(0, place) + 1
    if form in LEB_BLOCKS:
        length, start = uleb(content, place)
        return start, start + length
    if form in BLOCKS:
        start = place + BLOCKS[form]
        return start, start + int.from_bytes(content[place:start], "little")
    raise ValueError(f"form {form:#x}")


def skip(content: bytes, forms: Forms, place: int) -> int:
    """Where an entry ends."""
    for _attribute, form, _constant in forms:
        size = FIXED.get(form)
        place = place + size if size is not None else varying(content, form, place)[1]
    return place


def values(content: bytes, forms: Forms, place: int) -> dict[int, tuple[int, int]]:
    """Attribute -> (form, number or place of the text or block)."""
    found: dict[int, tuple[int, int]] = {}
    for attribute, form, constant in forms:
        size = FIXED.get(form)
        if size is None:
            value, place = varying(content, form, place)
        else:
            value = constant if form == IMPLICIT_CONST else int.from_bytes(content[place : place + size], "little")
            place += size
        found[attribute] = form, value
    return found


def text_at(content: bytes, at: int) -> str:
    return content[at : content.index(0, at)].decode("utf-8", "replace")


def places_of(strings: bytes, name: str) -> Iterator[int]:
    """Where a string stands, also as the end of another one."""
    text = name.encode() + b"\0"
    place = strings.find(text)
    while place >= 0:
        yield place
        place = strings.find(text, place + 1)
