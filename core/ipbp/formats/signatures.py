"""What functions take and return, as the debug information of a unit says it (DWARF 5, 3.3, 5).

Written as text that is equal when a caller that was compiled for the one may call the other: names of types behind
typedefs, the size of a structure that is passed by value, no qualifiers. Only the outermost entries of a unit are
looked at, and what those functions refer to that are asked for: a unit may have thousands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ipbp.formats.debug_abbreviations import declarations
from ipbp.formats.debug_forms import (
    FIXED,
    LINE_STRP,
    LOCAL_REFERENCES,
    REF4,
    STRING,
    STRP,
    STRX,
    Forms,
    places_of,
    skip,
    text_at,
    values,
)
from ipbp.graph.leb import uleb
from ipbp.kept import of_the_last

SECTIONS = (".debug_info", ".debug_abbrev", ".debug_str", ".debug_line_str", ".debug_str_offsets")
"""Those that are looked at."""
_ARRAY, _CLASS, _ENUMERATION, _PARAMETER, _POINTER, _COMPILE_UNIT = 0x01, 0x02, 0x04, 0x05, 0x0F, 0x11
_STRUCTURE, _SUBROUTINE, _TYPEDEF, _UNION, _UNSPECIFIED = 0x13, 0x15, 0x16, 0x17, 0x18
_CONST, _SUBPROGRAM, _VOLATILE, _RESTRICT, _ATOMIC = 0x26, 0x2E, 0x35, 0x37, 0x47
_NAMESPACE, _REFERENCE, _RVALUE_REFERENCE = 0x39, 0x10, 0x42
_ADDRESSES = frozenset({_POINTER, _ARRAY, _REFERENCE, _RVALUE_REFERENCE})
_PEELED = frozenset({_TYPEDEF, _CONST, _VOLATILE, _RESTRICT, _ATOMIC})
_KEYWORD = {_STRUCTURE: "struct", _UNION: "union", _ENUMERATION: "enum", _CLASS: "class"}
_AT_SIBLING, _AT_NAME, _AT_BYTE_SIZE, _AT_DECLARATION, _AT_EXTERNAL, _AT_TYPE = 0x01, 0x03, 0x0B, 0x3C, 0x3F, 0x49
_AT_STR_OFFSETS_BASE, _AT_SPECIFICATION, _AT_LINKAGE_NAME = 0x72, 0x47, 0x6E
_REF_ADDR = 0x10
_DEEPEST = 8
_FEW = 32
"""Names: of more it is quicker to read those of all functions than to look for each."""


def signatures(
    sections: Mapping[str, bytes], names: Collection[str], source: str = "", shared: bool = True
) -> dict[str, str]:
    """By name in the symbol table the signature of those functions that these `SECTIONS` define and describe; {} where
    they cannot be read. `source`: base name of the only unit to look at. `shared`: global C functions only."""
    found: dict[str, str] = {}
    if shared:  # the names of others say what they take
        names = frozenset(name for name in names if not name.startswith("_Z"))
    strings = sections.get(".debug_str", b"")
    few = len(names) <= _FEW
    wanted = frozenset(place for name in names for place in places_of(strings, name)) if few else None
    try:
        for unit in _units(sections):
            if source and Path(unit.name).name != source:
                continue
            for function in unit.functions(wanted):
                if shared and _AT_EXTERNAL not in function.found:
                    continue
                declared = unit.declaration(function)
                name = unit.text(declared, _AT_LINKAGE_NAME) or unit.text(declared, _AT_NAME)
                if name in names:
                    found.setdefault(name, unit.signature(function, declared))
    except (KeyError, ValueError, IndexError, RecursionError):
        return {}
    return found


@dataclass(frozen=True, slots=True)
class _Abbreviation:
    """`size`: of its entries without their code, -1 when that varies. `sibling`: offset of the reference to the next
    sibling, -1 when there is none. `places`: attribute -> (form, offset), -1 where that varies."""

    tag: int
    has_children: bool
    forms: Forms
    size: int
    sibling: int
    places: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Entry:
    """`inside`: where its first child begins, -1 without children."""

    tag: int
    found: Mapping[int, tuple[int, int]]
    inside: int


@of_the_last(3)  # the new side of one patch is the old side of the next, and asked about before it
def _units(sections: Mapping[str, bytes]) -> list[_Unit]:
    content = sections.get(".debug_info", b"")
    found = []
    start = 0
    while start + 11 < len(content):
        length, version = int.from_bytes(content[start : start + 4], "little"), content[start + 4]
        if length >= 0xFFFFFFF0 or version not in (4, 5):
            raise ValueError(f"version {version} of DWARF, or its 64-bit format")
        kind = content[start + 6] if version == 5 else 1
        at = start + (8 if version == 5 else 6)
        table_at = int.from_bytes(content[at : at + 4], "little")
        table = _table(sections.get(".debug_abbrev", b""), table_at)
        if kind in (1, 3):  # a whole unit or a partial one (DWARF 5, 7.5.1)
            found.append(_Unit(sections, start, start + 4 + length, start + (12 if version == 5 else 11), table))
        start += 4 + length
    return found


@lru_cache(8)
def _table(content: bytes, place: int) -> Mapping[int, _Abbreviation]:
    table = {}
    for row in declarations(content, place):
        size, places = 0, {}
        for attribute, form, _constant in row.forms:
            places[attribute] = form, size
            size = size + FIXED[form] if form in FIXED and size >= 0 else -1
        form, sibling = places.get(_AT_SIBLING, (0, -1))
        sibling = sibling if form == REF4 else -1
        table[row.code] = _Abbreviation(row.tag, row.has_children, row.forms, size, sibling, places)
    return table


class _Unit:
    def __init__(
        self, sections: Mapping[str, bytes], start: int, end: int, first: int, table: Mapping[int, _Abbreviation]
    ) -> None:
        self.sections, self.start, self.end, self.table = sections, start, end, table
        self.content = sections[".debug_info"]
        self.offsets_base = 0
        self.top = self.entry(first)
        self.offsets_base = self.top.found.get(_AT_STR_OFFSETS_BASE, (0, 8))[1]

    @property
    def name(self) -> str:
        return self.text(self.top, _AT_NAME)

    def functions(self, wanted: Iterable[int] | None) -> Iterator[_Entry]:
        """Those that may have one of the names that are at these places of `.debug_str`, all for None."""
        numbers = (-1, *wanted) if wanted is not None else self._by_name
        return (self.entry(place) for number in numbers for place in self._by_name.get(number, ()))

    @cached_property
    def _by_name(self) -> dict[int, list[int]]:
        """Where the functions begin that are defined outermost or in namespaces, by where in `.debug_str` the name is;
        under -1 those of which that is not so easily told."""
        found: dict[int, list[int]] = {}
        parents = [self.top]
        while parents:
            for place, row, start in self._children(parents.pop()):
                if row.tag == _SUBPROGRAM and _AT_DECLARATION not in row.places:
                    found.setdefault(self._name_place(row, start), []).append(place)
                elif row.tag == _NAMESPACE and row.has_children:
                    parents.append(self.entry(place))
        return found

    def _name_place(self, row: _Abbreviation, start: int) -> int:
        """Where in `.debug_str` the name of the function is whose attributes begin at `start`; -1 for not told."""
        if _AT_SPECIFICATION in row.places:
            form, at = row.places[_AT_SPECIFICATION]
            if form != REF4 or at < 0:
                return -1
            code, start = uleb(self.content, self.start + self._word(start + at))
            row = self.table[code]
        form, at = row.places.get(_AT_LINKAGE_NAME, row.places.get(_AT_NAME, (0, -1)))
        return self._word(start + at) if form == STRP and at >= 0 else -1

    def _word(self, place: int) -> int:
        return int.from_bytes(self.content[place : place + 4], "little")

    def declaration(self, function: _Entry) -> _Entry:
        """Where its name is: a member of a class, or of a namespace, is declared there (DWARF 5, 2.13.2)."""
        form, value = function.found.get(_AT_SPECIFICATION, (0, 0))
        if not form or form not in LOCAL_REFERENCES:
            return function
        return self.entry(value + self.start)

    def entry(self, place: int) -> _Entry:
        code, at = uleb(self.content, place)
        row = self.table[code]
        inside = skip(self.content, row.forms, at) if row.has_children else -1
        return _Entry(row.tag, values(self.content, row.forms, at), inside)

    def _children(self, parent: _Entry) -> Iterator[tuple[int, _Abbreviation, int]]:
        """Where each begins, what it is, and where its attributes begin."""
        content, place, depth = self.content, parent.inside, 0
        while 0 <= place < self.end:
            at, code = place, content[place]
            place += 1
            if code == 0:
                depth -= 1
                if depth < 0:
                    return
                continue
            if code >= 0x80:
                code, place = uleb(content, at)
            row = self.table[code]
            if depth == 0:
                yield at, row, place
            if row.has_children and row.sibling >= 0:
                target = place + row.sibling
                place = self.start + int.from_bytes(content[target : target + 4], "little")
                if place <= target:
                    raise ValueError("a sibling that lies before the entry")
                continue
            depth += row.has_children
            place = place + row.size if row.size >= 0 else skip(content, row.forms, place)

    def signature(self, function: _Entry, declared: _Entry) -> str:
        taken = []
        for place, row, _start in self._children(function):
            if row.tag == _PARAMETER:
                taken.append(self._type(self.entry(place)))
            elif row.tag == _UNSPECIFIED:
                taken.append("...")
        given = function if _AT_TYPE in function.found else declared
        return f"{self._type(given)} ({', '.join(taken) or 'void'})"

    def _type(self, entry: _Entry, by_value: bool = True, depth: int = 0) -> str:
        if _AT_TYPE not in entry.found:
            return "void"
        if depth > _DEEPEST:
            return "..."
        form, value = entry.found[_AT_TYPE]
        if form not in LOCAL_REFERENCES and form != _REF_ADDR:
            raise ValueError(f"a type by form {form:#x}")
        target = self.entry(value + self.start if form in LOCAL_REFERENCES else value)
        if target.tag in _PEELED:
            return self._type(target, by_value, depth + 1)
        if target.tag in _ADDRESSES:
            return f"{self._type(target, False, depth + 1)} *"
        if target.tag == _SUBROUTINE:
            return "function"
        name = self.text(target, _AT_NAME)
        if target.tag in _KEYWORD:
            size = target.found.get(_AT_BYTE_SIZE)
            shown = f" of {size[1]} bytes" if by_value and size and target.tag != _ENUMERATION else ""
            return f"{_KEYWORD[target.tag]} {name}{shown}"
        return name

    def text(self, entry: _Entry, attribute: int) -> str:
        form, value = entry.found.get(attribute, (0, 0))
        if form == STRING:
            return text_at(self.content, value)
        if form in STRX:
            at = self.offsets_base + 4 * value
            form, value = STRP, int.from_bytes(self.sections[".debug_str_offsets"][at : at + 4], "little")
        section = {STRP: ".debug_str", LINE_STRP: ".debug_line_str"}.get(form)
        return text_at(self.sections[section], value) if section else ""
