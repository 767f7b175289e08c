"""Abbreviation tables of debug information, read as far as somebody asks (DWARF 5, 7.5.3).

Of most units only the top entry counts. pyelftools reads the whole table of a unit before it reads that one entry,
which takes nearly all of the time: 30 declarations field by field, for one. Here the bytes before the wanted
declaration are stepped over.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from elftools.common.exceptions import DWARFError
from elftools.common.utils import struct_parse
from elftools.dwarf.abbrevtable import AbbrevDecl

_LARGEST_SHIFT = 70  # ten bytes hold 64 bits
_IMPLICIT_CONST = 0x21  # DW_FORM_implicit_const: the value stands in the declaration


def read_as_needed(dwarf: Any) -> None:
    """Have a DWARFInfo of pyelftools read its abbreviation tables in this way."""
    dwarf.get_abbrev_table = partial(_Abbreviations, dwarf)


class _Abbreviations:
    """What pyelftools asks of its AbbrevTable."""

    def __init__(self, dwarf: Any, offset: int) -> None:
        section = dwarf.debug_abbrev_sec
        if section is None or offset >= section.size:
            raise DWARFError(f"there is no abbreviation table at {offset:#x}")
        self._structs, self._stream = dwarf.structs, section.stream
        self._content, self._next = section.stream.getbuffer(), offset
        self._place: dict[int, int] = {}
        self._known: dict[int, AbbrevDecl] = {}

    def get_abbrev(self, code: int) -> AbbrevDecl:
        """The declaration of a code. Errors: KeyError when there is none, IndexError when the table does not end."""
        if code not in self._known:
            while code not in self._place:
                following, place = _number(self._content, self._next)
                if following == 0:
                    raise KeyError(code)
                self._place[following], self._next = place, _behind(self._content, place)
            declaration = struct_parse(self._structs.Dwarf_abbrev_declaration, self._stream, self._place[code])
            self._known[code] = AbbrevDecl(code, declaration)
        return self._known[code]


def _behind(content: memoryview, place: int) -> int:
    """Where the declaration ends that starts here: tag, a byte for its children, attributes and forms up to zeros."""
    _tag, place = _number(content, place)
    place += 1
    while True:
        attribute, place = _number(content, place)
        form, place = _number(content, place)
        if form == _IMPLICIT_CONST:
            _value, place = _number(content, place)
        if attribute == form == 0:
            return place


def _number(content: memoryview, place: int) -> tuple[int, int]:
    """A ULEB128 number, and where it ends."""
    value = 0
    for shift in range(0, _LARGEST_SHIFT, 7):
        octet = content[place]
        value |= (octet & 0x7F) << shift
        place += 1
        if octet < 0x80:
            return value, place
    raise DWARFError("a number in .debug_abbrev does not end")
