"""The units of some debug information: the types, functions and variables that they describe, read in one pass.

Sources: DWARF 5, sections 7.5 (format of .debug_info, abbreviations, forms) and 5 (types); version 4 differs in the
header of a unit. Entries that say nothing about types are stepped over by the length of their forms. Written for
this because a crate has ten thousand entries and a general reader takes a second for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from ipbp.errors import IpbpError
from ipbp.formats.debug_entries import MALFORMED, Found, Sections, Shape, Texts, shapes
from ipbp.formats.debug_forms import ANY_BLOCK, LOCAL_REFERENCES
from ipbp.formats.debug_split import Skeleton
from ipbp.graph.leb import uleb
from ipbp.graph.types import Part, TypeLayout

_CLASS, _ENUMERATION, _MEMBER, _STRUCTURE, _UNION = 0x02, 0x04, 0x0D, 0x13, 0x17
_VARIANT, _INHERITANCE, _ENUMERATOR, _SUBPROGRAM, _NAMESPACE = 0x19, 0x1C, 0x28, 0x2E, 0x39
_COMPILE_UNIT, _SKELETON, _PARTIAL = 0x11, 0x4A, 0x3C
_VARIANT_PART, _VARIABLE, _PARAMETER, _ARRAY, _SUBRANGE = 0x33, 0x34, 0x05, 0x01, 0x21
_AGGREGATES = frozenset({_CLASS, _STRUCTURE, _UNION, _ENUMERATION})
_SCOPES = _AGGREGATES | {_NAMESPACE, _SUBPROGRAM}
_TEMPLATE_TYPE = 0x2F
_USEFUL = frozenset(
    {_VARIANT, _VARIANT_PART, _MEMBER, _INHERITANCE, _COMPILE_UNIT, _SKELETON, _ARRAY, _SUBRANGE, *_SCOPES}
)
"""What says something of types, with a name or without."""
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
INFO, ADDRESSES = ".debug_info", ".debug_addr"
_ADDR, _INDEXED = 0x03, (0xA1, 0xFB)  # DW_OP_addr, DW_OP_addrx and DW_OP_GNU_addr_index
_TABLE = "::{vtable}"
_COROUTINE = re.compile(r"::\{(?!closure)\w+_env#\d+\}(?:<.*>)?\Z", re.DOTALL)


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
    except MALFORMED as error:
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
        self._texts = Texts(sections)
        self._taken: list[tuple[str, bool, _Entry]] = []  # linkage name, only a declaration, the function's entry

    def read(self) -> None:
        info, place = self.info, self.first
        stack: list[_Entry | None] = []
        scope: list[str] = [""]
        in_function = [False]
        while place < self.end:
            entry_at = place
            code, place = info[place], place + 1
            if code >= 0x80:
                code, place = uleb(info, entry_at)
            if code == 0:
                if not stack:
                    continue
                stack.pop()
                scope.pop()
                in_function.pop()
                continue
            shape, is_useful = self.abbreviations[code]
            entry = None
            # Every other entry is a local variable. Tables of methods are in no function (rustc_codegen_llvm,
            # `create_vtable_di_node`), and what is static there has a linkage name.
            is_local = in_function[-1] and shape.tag == _VARIABLE and _AT_LINKAGE_NAME not in shape.given
            if is_useful and not is_local:
                found, place = shape.read(info, place)
                entry = self._entry(shape.tag, found, entry_at, scope[-1], stack[-1] if stack else None)
            else:
                place = shape.end(info, place)
            if shape.has_children:
                stack.append(entry)
                in_function.append(in_function[-1] or shape.tag == _SUBPROGRAM)
                scope.append(entry.name if entry is not None and shape.tag in _SCOPES else scope[-1])

    @cached_property
    def layouts(self) -> list[tuple[str, TypeLayout]]:
        found = []
        for entry in self.types:
            if entry.name and entry.size >= 0:
                parts = [Part(n, o, self.names.get(t, ""), v) for n, o, t, v in entry.parts]
                parts.sort(key=lambda part: (part.offset, part.name))
                found.append((entry.name, TypeLayout(entry.size, tuple(parts))))
        return found

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

    def _entry(self, tag: int, found: Found, at: int, scope: str, parent: _Entry | None) -> _Entry | None:
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
            value = self._number(found.get(_AT_DISCR_VALUE, (0, -1)))
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

    def _as_skeleton(self, found: Found) -> Skeleton | None:
        name = self._text(found.get(_AT_DWO_NAME)) or self._text(found.get(_AT_GNU_DWO_NAME))
        if not name:
            return None
        return Skeleton(self.identity, self._text(found.get(_AT_COMP_DIR)), name, self.program, self.addresses)

    def _part(self, tag: int, name: str, found: Found, parent: _Entry) -> tuple[str, int, int, int | None]:
        offset = self._number(found.get(_AT_DATA_MEMBER_LOCATION, (0, 0)))
        if _AT_BIT_SIZE in found:
            offset = offset * 8 + found.get(_AT_DATA_BIT_OFFSET, (0, 0))[1] << 16 | found[_AT_BIT_SIZE][1]
        type_at = self._reference(found.get(_AT_TYPE))
        is_given = tag == _ENUMERATOR and _AT_CONST_VALUE in found
        value = self._number(found[_AT_CONST_VALUE]) if is_given else parent.value
        return name, offset, type_at, value

    def _reference(self, found: tuple[int, int] | None) -> int:
        if found is None:
            return -1
        return found[1] + self.start if found[0] in LOCAL_REFERENCES else found[1]

    def _text(self, found: tuple[int, int] | None) -> str:
        return self._texts.text(found, INFO, self.offsets_base) if found is not None else ""

    def _number(self, found: tuple[int, int]) -> int:
        """A constant, also one that is too wide for a form of its own; the length of such a block is one octet."""
        form, value = found
        if form not in ANY_BLOCK:
            return value
        return int.from_bytes(self.info[value : value + self.info[value - 1]], "little")


def _abbreviations(content: bytes, place: int) -> dict[int, tuple[Shape, bool]]:
    """Code -> what its entries are, and whether they say something of types."""
    return {code: (shape, _is_useful(shape)) for code, shape in shapes(content, place, _WANTED)}


def _is_useful(shape: Shape) -> bool:
    if shape.tag == _TEMPLATE_TYPE:
        return False  # `T`, of which the name of the type that it is a part of says what it is
    return _AT_NAME in shape.given or shape.tag in _USEFUL
