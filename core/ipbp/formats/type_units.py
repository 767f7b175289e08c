"""The units of some debug information: the types, functions and variables that they describe, read in one pass.

Sources: DWARF 5, sections 7.5 (format of .debug_info, abbreviations, forms) and 5 (types); version 4 differs in the
header of a unit. Entries that say nothing about types are stepped over by the length of their forms. Written for
this because a crate has ten thousand entries and a general reader takes a second for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ipbp.errors import IpbpError
from ipbp.formats.debug_abbreviations import IMPLICIT_CONST, declarations
from ipbp.formats.debug_split import Skeleton
from ipbp.formats.leb import sleb, uleb
from ipbp.graph.types import Part, TypeLayout

_CLASS, _ENUMERATION, _MEMBER, _STRUCTURE, _UNION = 0x02, 0x04, 0x0D, 0x13, 0x17
_VARIANT, _INHERITANCE, _ENUMERATOR, _SUBPROGRAM, _NAMESPACE = 0x19, 0x1C, 0x28, 0x2E, 0x39
_COMPILE_UNIT, _SKELETON, _PARTIAL = 0x11, 0x4A, 0x3C
_VARIANT_PART, _VARIABLE, _PARAMETER, _ARRAY, _SUBRANGE = 0x33, 0x34, 0x05, 0x01, 0x21
_AGGREGATES = frozenset({_CLASS, _STRUCTURE, _UNION, _ENUMERATION})
_SCOPES = _AGGREGATES | {_NAMESPACE, _SUBPROGRAM}
_AT_NAME, _AT_BYTE_SIZE, _AT_DISCR_VALUE, _AT_CONST_VALUE = 0x03, 0x0B, 0x16, 0x1C
_AT_DATA_MEMBER_LOCATION, _AT_DECLARATION, _AT_SPECIFICATION, _AT_TYPE, _AT_LINKAGE_NAME = 0x38, 0x3C, 0x47, 0x49, 0x6E
_AT_DATA_BIT_OFFSET, _AT_BIT_SIZE, _AT_STR_OFFSETS_BASE = 0x6B, 0x0D, 0x72
_AT_LOCATION, _AT_STMT_LIST, _AT_DECL_FILE, _AT_DECL_LINE = 0x02, 0x10, 0x3A, 0x3B
_AT_UPPER_BOUND, _AT_COUNT = 0x2F, 0x37
_AT_COMP_DIR, _AT_DWO_NAME, _AT_ADDR_BASE = 0x1B, 0x76, 0x73
_AT_GNU_DWO_NAME, _AT_GNU_DWO_ID, _AT_GNU_ADDR_BASE = 0x2130, 0x2131, 0x2133
_WANTED = frozenset(
    {
        _AT_NAME,
        _AT_BYTE_SIZE,
        _AT_DISCR_VALUE,
        _AT_CONST_VALUE,
        _AT_DATA_MEMBER_LOCATION,
        _AT_DECLARATION,
        _AT_SPECIFICATION,
        _AT_TYPE,
        _AT_LINKAGE_NAME,
        _AT_DATA_BIT_OFFSET,
        _AT_BIT_SIZE,
        _AT_STR_OFFSETS_BASE,
        _AT_LOCATION,
        _AT_STMT_LIST,
        _AT_DECL_FILE,
        _AT_DECL_LINE,
        _AT_UPPER_BOUND,
        _AT_COUNT,
        _AT_COMP_DIR,
        _AT_DWO_NAME,
        _AT_ADDR_BASE,
        _AT_GNU_DWO_NAME,
        _AT_GNU_DWO_ID,
        _AT_GNU_ADDR_BASE,
    }
)
# Forms of a fixed length, in 32-bit DWARF on a machine with 8-byte addresses (DWARF 5, 7.5.6).
_FIXED = {
    0x01: 8,  # addr
    0x05: 2,  # data2
    0x06: 4,  # data4
    0x07: 8,  # data8
    0x0B: 1,  # data1
    0x0C: 1,  # flag
    0x0E: 4,  # strp
    0x10: 4,  # ref_addr
    0x11: 1,  # ref1
    0x12: 2,  # ref2
    0x13: 4,  # ref4
    0x14: 8,  # ref8
    0x17: 4,  # sec_offset
    0x19: 0,  # flag_present
    0x1C: 4,  # ref_sup4
    0x1D: 4,  # strp_sup
    0x1E: 16,  # data16
    0x1F: 4,  # line_strp
    0x20: 8,  # ref_sig8
    0x21: 0,  # implicit_const
    0x25: 1,  # strx1
    0x26: 2,  # strx2
    0x27: 3,  # strx3
    0x28: 4,  # strx4
    0x29: 1,  # addrx1
    0x2A: 2,  # addrx2
    0x2B: 3,  # addrx3
    0x2C: 4,  # addrx4
}
# sdata, udata, ref_udata, strx, addrx, loclistx, rnglistx, GNU_addr_index, GNU_str_index
_LEB = frozenset({0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23, 0x1F01, 0x1F02})
_SDATA, _STRING, _FLAG_PRESENT, _STRP, _LINE_STRP = 0x0D, 0x08, 0x19, 0x0E, 0x1F
_BLOCKS = {0x03: 2, 0x04: 4, 0x0A: 1}  # block2, block4, block1: the width of their length
_LEB_BLOCKS = frozenset({0x09, 0x18})  # block, exprloc
_LOCAL_REFERENCES = frozenset({0x11, 0x12, 0x13, 0x14, 0x15})
INFO, ADDRESSES = ".debug_info", ".debug_addr"
_STRX = frozenset({0x1A, 0x25, 0x26, 0x27, 0x28, 0x1F02})
_ADDR, _INDEXED = 0x03, (0xA1, 0xFB)  # DW_OP_addr, DW_OP_addrx and DW_OP_GNU_addr_index
_TABLE = "::{vtable}"
_COROUTINE = re.compile(r"::\{(?!closure)\w+_env#\d+\}(?:<.*>)?\Z", re.DOTALL)

Sections = Mapping[str, bytes]
"""The debug sections of one object or image, relocated as far as they refer to each other."""


def type_units(sections: Sections, path: str, is_split: bool = False) -> list[TypeUnit]:
    """All units of some sections. One may refer to types of another (ThinLTO shares them)."""
    names: dict[int, str] = {}
    units = list(_units(sections, names, path, is_split))
    _name_arrays(names, {at: entry for unit in units for at, entry in unit.arrays.items()})
    return units


def _name_arrays(names: dict[int, str], arrays: Mapping[int, _Entry]) -> None:
    """Arrays have no names of their own: `[u64; 3]`, as Rust writes them."""

    def name(at: int) -> str:
        if at not in arrays:
            return names.get(at, "")
        (_, _, element, _), *dimensions = arrays[at].parts
        shown = name(element)
        for _, count, _, _ in dimensions[::-1]:
            shown = f"[{shown}; {count}]"
        return shown

    names.update({at: name(at) for at in arrays})


@dataclass(slots=True)
class _Entry:
    """An entry that matters. `name`: qualified, "" for those without."""

    tag: int
    name: str
    size: int
    parts: list[tuple[str, int, int, int | None]]  # name, offset, place of the type, value
    value: int | None


def _units(sections: Sections, names: dict[int, str], path: str, is_split: bool) -> Iterator[TypeUnit]:
    info = sections.get(INFO, b"")
    place = 0
    try:
        while place + 11 < len(info):
            unit = TypeUnit(sections, info, place, names, is_split)
            unit.read()
            place = unit.end
            yield unit
    except (IndexError, KeyError, ValueError) as error:
        raise IpbpError(
            "debug-information-malformed",
            f"{path}: its debug information cannot be read: {type(error).__name__}: {error}",
            "Build it again; if that does not help, report it.",
        ) from error


class TypeUnit:
    """One unit of .debug_info. `names`: place of an entry -> the name of that type, for all units of the section.
    `is_split`: it is the half of a unit that has its types."""

    def __init__(self, sections: Sections, info: bytes, start: int, names: dict[int, str], is_split: bool) -> None:
        self.sections, self.info, self.start = sections, info, start
        length, version = int.from_bytes(info[start : start + 4], "little"), info[start + 4]
        if length >= 0xFFFFFFF0 or version not in (4, 5):
            raise ValueError(f"version {version} of DWARF, or its 64-bit format")
        self.end = start + 4 + length
        kind = info[start + 6] if version == 5 else 1
        at = start + (8 if version == 5 else 6)
        self.abbreviations = _abbreviations(
            sections.get(".debug_abbrev", b""), int.from_bytes(info[at : at + 4], "little")
        )
        # Skeletons and type units have 8 bytes more, type units another offset (DWARF 5, 7.5.1).
        extra = {2: 12, 6: 12, 4: 8, 5: 8}.get(kind, 0)
        self.first = start + (12 if version == 5 else 11) + extra
        # The number that two halves share is in the header, in version 4 an attribute.
        self.identity = int.from_bytes(info[self.first - 8 : self.first], "little") if kind in (4, 5) else 0
        self.is_split = is_split
        self.skeleton: Skeleton | None = None
        self._no_base = 8 if version == 5 else 0  # only version 5 has a header there (7.26)
        self.offsets_base = self._no_base
        self.names = names
        self.types: list[_Entry] = []
        self.functions: dict[str, str] = {}
        self.variables: list[tuple[str, str, int]] = []
        self.addresses = 0  # where the unit's own begin in .debug_addr
        self._tables: list[tuple[str, str, int]] = []  # name, section, offset or number of the address there
        self.program = 0
        self.waits: dict[str, dict[int, int]] = {}
        self.files: dict[str, int] = {}
        self.arrays: dict[int, _Entry] = {}
        self._linkages: dict[int, str] = {}
        self._taken: list[tuple[str, bool, _Entry]] = []  # linkage name, only a declaration, the function's entry

    def read(self) -> None:
        info, place = self.info, self.first
        stack: list[_Entry | None] = []
        scope: list[str] = [""]
        while place < self.end:
            entry_at = place
            code, place = uleb(info, place)
            if code == 0:
                if not stack:
                    continue
                stack.pop()
                scope.pop()
                continue
            tag, has_children, forms, skip = self.abbreviations[code]
            if skip is not None:
                place += skip
                if has_children:
                    stack.append(None)
                    scope.append(scope[-1])
                continue
            found, place = self._attributes(forms, place)
            entry = self._entry(tag, found, entry_at, scope[-1], stack[-1] if stack else None)
            if has_children:
                stack.append(entry)
                scope.append(entry.name if entry is not None and tag in _SCOPES else scope[-1])

    def layouts(self) -> Iterator[tuple[str, TypeLayout]]:
        for entry in self.types:
            if entry.name and entry.size >= 0:
                parts = [Part(n, o, self.names.get(t, ""), v) for n, o, t, v in entry.parts]
                yield (
                    entry.name,
                    TypeLayout(entry.size, tuple(sorted(parts, key=lambda part: (part.offset, part.name)))),
                )

    def signatures(self) -> Iterator[tuple[str, str]]:
        for linkage, is_declared, entry in self._taken:
            if is_declared and not entry.parts:
                continue  # of a callee of optimised code (DWARF 5, 3.4), which says nothing of what it takes
            taken = [self.names.get(at, "") for name, _, at, _ in entry.parts if not name]
            result = next((self.names.get(at, "") for name, _, at, _ in entry.parts if name), "()")
            yield linkage, f"({', '.join(taken)}) -> {result}"

    def tables(self) -> Iterator[tuple[str, str, int]]:
        """Tables of methods: name, and section and offset of what holds the address."""
        for name, section, at in self._tables:
            yield name, section, at if section == INFO else self.addresses + 8 * at

    def _entry(
        self, tag: int, found: dict[int, tuple[int, int]], at: int, scope: str, parent: _Entry | None
    ) -> _Entry | None:
        if tag in (_COMPILE_UNIT, _PARTIAL, _SKELETON):
            self.offsets_base = found.get(_AT_STR_OFFSETS_BASE, (0, self._no_base))[1]
            self.program = found.get(_AT_STMT_LIST, (0, 0))[1]
            self.addresses = (found.get(_AT_ADDR_BASE) or found.get(_AT_GNU_ADDR_BASE) or (0, 0))[1]
            self.identity = found.get(_AT_GNU_DWO_ID, (0, self.identity))[1]
            if not self.is_split:
                self.skeleton = self._as_skeleton(found)
            return None
        if tag == _PARAMETER:
            if parent is not None and parent.tag == _SUBPROGRAM:
                parent.parts.append(("", 0, self._reference(found.get(_AT_TYPE)), None))
            return None
        own = self._text(found.get(_AT_NAME))
        if tag in (_MEMBER, _INHERITANCE, _ENUMERATOR):
            if parent is not None:
                parent.parts.append(self._part(tag, own, found, parent))
                if parent.tag == _VARIANT and _AT_DECL_LINE in found and _COROUTINE.search(scope):
                    self.waits.setdefault(scope, {})[parent.value or 0] = found[_AT_DECL_LINE][1]
                    self.files[scope] = found.get(_AT_DECL_FILE, (0, 0))[1]
            return None
        if tag == _SUBRANGE:
            if parent is not None and parent.tag == _ARRAY:
                count = found[_AT_UPPER_BOUND][1] + 1 if _AT_UPPER_BOUND in found else found.get(_AT_COUNT, (0, -1))[1]
                parent.parts.append(("", count, -1, None))
            return None
        if tag == _ARRAY:
            self.arrays[at] = _Entry(tag, "", -1, [("", 0, self._reference(found.get(_AT_TYPE)), None)], None)
            return self.arrays[at]
        name = f"{scope}::{own}" if scope and own else own
        if tag == _VARIABLE:
            if linkage := self._text(found.get(_AT_LINKAGE_NAME)):
                self.variables.append((linkage, name, self._reference(found.get(_AT_TYPE))))
            elif own.endswith(_TABLE) and _AT_LOCATION in found:
                at = found[_AT_LOCATION][1]
                if self.info[at] == _ADDR:
                    self._tables.append((own, INFO, at + 1))
                elif self.info[at] in _INDEXED:
                    self._tables.append((own, ADDRESSES, uleb(self.info, at + 1)[0]))
            return None
        if tag == _VARIANT:
            # The variant's field is a field of the type around it.
            value = found.get(_AT_DISCR_VALUE, (0, -1))[1]
            return None if parent is None else _Entry(_VARIANT, scope, -1, parent.parts, value)
        self.names[at] = name
        size = found.get(_AT_BYTE_SIZE, (0, -1))[1]
        if tag in _AGGREGATES:
            entry = _Entry(tag, name, -1 if _AT_DECLARATION in found else size, [], None)
            self.types.append(entry)
            return entry
        if tag == _SUBPROGRAM:
            entry = _Entry(tag, name, -1, [], None)
            linkage = self._text(found.get(_AT_LINKAGE_NAME))
            if linkage:
                self.functions[linkage] = name
                self._linkages[at] = linkage
            # A method is declared in its type and defined outside (DWARF 5, 5.7.8).
            linkage = linkage or self._linkages.get(self._reference(found.get(_AT_SPECIFICATION)), "")
            if linkage:
                if _AT_TYPE in found:
                    entry.parts.append(("result", 0, self._reference(found[_AT_TYPE]), None))
                self._taken.append((linkage, _AT_DECLARATION in found, entry))
            return entry
        # A part of an aggregate that only groups others (a variant part) hands them on.
        return parent if tag == _VARIANT_PART and parent is not None else _Entry(tag, name, -1, [], None)

    def _as_skeleton(self, found: dict[int, tuple[int, int]]) -> Skeleton | None:
        name = self._text(found.get(_AT_DWO_NAME)) or self._text(found.get(_AT_GNU_DWO_NAME))
        if not name:
            return None
        return Skeleton(self.identity, self._text(found.get(_AT_COMP_DIR)), name, self.program, self.addresses)

    def _part(
        self, tag: int, name: str, found: dict[int, tuple[int, int]], parent: _Entry
    ) -> tuple[str, int, int, int | None]:
        offset = found.get(_AT_DATA_MEMBER_LOCATION, (0, 0))[1]
        if _AT_BIT_SIZE in found:
            offset = offset * 8 + found.get(_AT_DATA_BIT_OFFSET, (0, 0))[1] << 16 | found[_AT_BIT_SIZE][1]
        type_at = self._reference(found.get(_AT_TYPE))
        value = found[_AT_CONST_VALUE][1] if tag == _ENUMERATOR and _AT_CONST_VALUE in found else parent.value
        return name, offset, type_at, value

    def _reference(self, found: tuple[int, int] | None) -> int:
        if found is None:
            return -1
        return found[1] + self.start if found[0] in _LOCAL_REFERENCES else found[1]

    def _attributes(
        self, forms: tuple[tuple[int, int, int], ...], place: int
    ) -> tuple[dict[int, tuple[int, int]], int]:
        """Wanted attributes as (form, number or place of the text), and where the entry ends."""
        info = self.info
        found: dict[int, tuple[int, int]] = {}
        for attribute, form, constant in forms:
            start = place
            size = _FIXED.get(form)
            if size is not None:
                place += size
                value = constant if form == IMPLICIT_CONST else int.from_bytes(info[start:place], "little")
                if form == _FLAG_PRESENT:
                    value = 1
            elif form in _LEB:
                value, place = sleb(info, place) if form == _SDATA else uleb(info, place)
            elif form == _STRING:
                value, place = start, info.index(0, place) + 1
            elif form in _LEB_BLOCKS:
                length, place = uleb(info, place)
                value = place if attribute == _AT_LOCATION else length
                place += length
            elif form in _BLOCKS:
                width = _BLOCKS[form]
                value = int.from_bytes(info[place : place + width], "little")
                place += width + value
            else:
                raise ValueError(f"form {form:#x}")
            if attribute in _WANTED:
                found[attribute] = form, value
        return found, place

    def _text(self, found: tuple[int, int] | None) -> str:
        if found is None:
            return ""
        form, value = found
        if form == _STRING:
            return _string(self.info, value)
        if form in _STRX:
            at = self.offsets_base + 4 * value
            value = int.from_bytes(self.sections[".debug_str_offsets"][at : at + 4], "little")
            form = _STRP
        name = {_STRP: ".debug_str", _LINE_STRP: ".debug_line_str"}.get(form)
        return _string(self.sections[name], value) if name else ""


def _string(content: bytes, at: int) -> str:
    return content[at : content.index(0, at)].decode("utf-8", "replace")


def _abbreviations(
    content: bytes, place: int
) -> dict[int, tuple[int, bool, tuple[tuple[int, int, int], ...], int | None]]:
    """Code -> (tag, has children, forms, length when the entry says nothing of types)."""
    table: dict[int, tuple[int, bool, tuple[tuple[int, int, int], ...], int | None]] = {}
    for row in declarations(content, place):
        sizes = [_FIXED.get(form) for _, form, _ in row.forms]
        useful = any(attribute == _AT_NAME for attribute, _, _ in row.forms) or row.tag in (_VARIANT, _VARIANT_PART)
        useful |= row.tag in (_MEMBER, _INHERITANCE, _COMPILE_UNIT, _SKELETON, _ARRAY, _SUBRANGE, *_SCOPES)
        known = [size for size in sizes if size is not None]
        skip = sum(known) if not useful and len(known) == len(sizes) else None
        table[row.code] = row.tag, row.has_children, row.forms, skip
    return table
