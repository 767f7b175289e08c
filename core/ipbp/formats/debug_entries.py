"""The entries of debug information, read by what their abbreviations say (DWARF 5, 7.5).

A crate or a unit of C++ has ten to twenty thousand entries, and a general reader takes seconds for them. So for each
abbreviation it is worked out once where in its entries the attributes lie that a reader wants: stretches of fixed
length are unpacked in one call, what nobody wants is stepped over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ipbp.formats.debug_abbreviations import IMPLICIT_CONST, Declaration, declarations
from ipbp.formats.debug_forms import FIXED, FLAG_PRESENT, LINE_STRP, STRING, STRP, STRX, text_at, varying

_UNPACKED = {1: "B", 2: "H", 4: "I", 8: "Q"}
Sections = Mapping[str, bytes]
"""The debug sections of one object or image, relocated as far as they refer to each other."""
Found = dict[int, tuple[int, int]]
"""Attribute -> its form and its number; of a text in place or of a block the place where it begins."""
MALFORMED = (IndexError, KeyError, ValueError, struct.error)
"""What reading raises where debug information is damaged."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of fixed length, `size`, of which `unpack` gives what is wanted, and the attribute behind it, of a
    varying length; form 0 for none, attribute 0 for one that is not wanted."""

    unpack: Callable[[bytes, int], tuple[Any, ...]]
    attributes: tuple[int, ...]
    forms: tuple[int, ...]
    size: int
    attribute: int
    form: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What the entries of one abbreviation consist of. `size`: of an entry without its code, -1 when that varies.
    `given`: its attributes. `places`: (form, offset) of those that have the same place in all entries."""

    tag: int
    has_children: bool
    size: int
    given: frozenset[int]
    places: dict[int, tuple[int, int]]
    constants: Found
    pieces: tuple[_Piece, ...]

    def read(self, content: bytes, place: int) -> tuple[Found, int]:
        """The attributes that are wanted, and where the entry ends. `place`: behind its code."""
        found = self.constants.copy()
        for piece in self.pieces:
            if piece.attributes:
                for attribute, form, value in zip(
                    piece.attributes, piece.forms, piece.unpack(content, place), strict=True
                ):
                    found[attribute] = form, value
            place += piece.size
            if piece.form:
                value, place = _varying(content, piece.form, place)
                if piece.attribute:
                    found[piece.attribute] = piece.form, value
        return found, place

    def end(self, content: bytes, place: int) -> int:
        """Where the entry ends."""
        if self.size >= 0:
            return place + self.size
        for piece in self.pieces:
            place += piece.size
            if piece.form:
                _, place = _varying(content, piece.form, place)
        return place


def shapes(content: bytes, place: int, wanted: frozenset[int]) -> Iterator[tuple[int, Shape]]:
    """The table of abbreviations at `place`, code by code."""
    for row in declarations(content, place):
        yield row.code, _shape(row, wanted)


@lru_cache(4096)  # compilers use the same few hundred
def _shape(row: Declaration, wanted: frozenset[int]) -> Shape:
    constants: Found = {}
    pieces: list[_Piece] = []
    layout, attributes, forms, size = "<", list[int](), list[int](), 0
    places: dict[int, tuple[int, int]] = {}

    def finish(attribute: int, form: int) -> None:
        nonlocal layout, attributes, forms, size
        pieces.append(_Piece(struct.Struct(layout).unpack_from, tuple(attributes), tuple(forms), size, attribute, form))
        layout, attributes, forms, size = "<", [], [], 0

    for attribute, form, constant in row.forms:
        length, is_wanted = FIXED.get(form, -1), attribute in wanted
        if not pieces:
            places[attribute] = form, size
        if form in (IMPLICIT_CONST, FLAG_PRESENT):
            if is_wanted:
                constants[attribute] = form, constant if form == IMPLICIT_CONST else 1
        elif length < 0 or (is_wanted and length not in _UNPACKED):
            finish(attribute if is_wanted else 0, form)
        else:
            layout += _UNPACKED[length] if is_wanted else f"{length}x"
            size += length
            if is_wanted:
                attributes.append(attribute)
                forms.append(form)
    finish(0, 0)
    given = frozenset(attribute for attribute, _, _ in row.forms)
    whole = -1 if any(FIXED.get(form) is None for _, form, _ in row.forms) else sum(FIXED[f] for _, f, _ in row.forms)
    return Shape(row.tag, row.has_children, whole, given, places, constants, tuple(pieces))


def _varying(content: bytes, form: int, place: int) -> tuple[int, int]:
    """A value that is not unpacked, and where it ends; of a text or a block where it begins."""
    size = FIXED.get(form)
    if size is None:
        return varying(content, form, place)
    return int.from_bytes(content[place : place + size], "little"), place + size


class Texts:
    """The strings of one object's debug sections, each decoded once."""

    def __init__(self, sections: Sections) -> None:
        self._sections = sections
        self._known: dict[tuple[str, int], str] = {}

    def text(self, found: tuple[int, int] | None, section: str, offsets_base: int) -> str:
        """What an attribute of an entry in `section` says; "" for none. `offsets_base`: of its unit (DWARF 5, 7.26)."""
        if found is None:
            return ""
        form, value = found
        if form in STRX:
            at = offsets_base + 4 * value
            value = int.from_bytes(self._sections[".debug_str_offsets"][at : at + 4], "little")
            form = STRP
        name = section if form == STRING else _OF_STRINGS.get(form)
        if name is None:
            return ""
        known = self._known.get((name, value))
        if known is None:
            content = self._sections[name]
            known = text_at(content, value)
            self._known[name, value] = known
        return known


_OF_STRINGS = {STRP: ".debug_str", LINE_STRP: ".debug_line_str"}
