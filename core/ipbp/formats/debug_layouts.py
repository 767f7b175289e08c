"""DWARF to `graph.layouts`: the types and static variables of a C or C++ unit, read in one pass over its entries.

Sources: DWARF 5, sections 7.5 (format of .debug_info), 5 (types) and 4.1 (variables); version 4 differs in the header
of a unit and has its type units in .debug_types. A unit of 3,000 lines has ten to twenty thousand entries, most of
them in bodies of functions and of no interest: for each abbreviation it is worked out once how long its entries are
and where in them the attributes lie that matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ipbp.errors import IpbpError
from ipbp.formats.debug_entries import MALFORMED, Sections, Shape, Texts, shapes
from ipbp.formats.debug_forms import ANY_BLOCK, LEB_BLOCKS, LOCAL_REFERENCES, REF4, REF_SIG8, STRP, UDATA, places_of
from ipbp.formats.debug_parts import pieces
from ipbp.graph.layouts import Aggregate, Closure, Definition, Member, TypeText, UnitTypes
from ipbp.graph.leb import uleb

_ARRAY, _CLASS, _ENUMERATION, _FORMAL_PARAMETER, _MEMBER, _POINTER, _REFERENCE = (
    0x01,
    0x02,
    0x04,
    0x05,
    0x0D,
    0x0F,
    0x10,
)
_COMPILE_UNIT, _STRUCTURE, _SUBROUTINE, _TYPEDEF, _UNION, _UNSPECIFIED_PARAMETERS = 0x11, 0x13, 0x15, 0x16, 0x17, 0x18
_INHERITANCE, _POINTER_TO_MEMBER, _SUBRANGE, _BASE, _CONST, _ENUMERATOR = 0x1C, 0x1F, 0x21, 0x24, 0x26, 0x28
_SUBPROGRAM, _VARIABLE, _VOLATILE, _RESTRICT, _NAMESPACE, _UNSPECIFIED = 0x2E, 0x34, 0x35, 0x37, 0x39, 0x3B
_TYPE_UNIT, _RVALUE_REFERENCE, _ATOMIC, _SKELETON, _PARTIAL = 0x41, 0x42, 0x47, 0x4A, 0x3C
_AGGREGATES = {_STRUCTURE: "struct", _CLASS: "class", _UNION: "union", _ENUMERATION: "enum"}
_QUALIFIERS = frozenset({_CONST, _VOLATILE, _RESTRICT, _ATOMIC})
_POINTERS = {_POINTER: "*", _REFERENCE: "&", _RVALUE_REFERENCE: "&&"}
_PARAMETERS = frozenset({_FORMAL_PARAMETER, _UNSPECIFIED_PARAMETERS, 0x2F, 0x30})  # and of templates
_WRAPPERS = frozenset({*_QUALIFIERS, *_POINTERS, _POINTER_TO_MEMBER})
_SCOPES = frozenset({*_AGGREGATES, _NAMESPACE, _SUBPROGRAM})
_NAMED = frozenset({*_SCOPES, _VARIABLE, _TYPEDEF})
_LEXICAL_BLOCK = 0x0B
_UNITS = frozenset({_COMPILE_UNIT, _PARTIAL, _SKELETON, _TYPE_UNIT})
_KNOWN = frozenset(
    {
        *_AGGREGATES,
        *_QUALIFIERS,
        *_POINTERS,
        *_UNITS,
        _ARRAY,
        _SUBROUTINE,
        _TYPEDEF,
        _POINTER_TO_MEMBER,
        _SUBRANGE,
        _BASE,
    }
    | {_UNSPECIFIED, _MEMBER, _INHERITANCE, _ENUMERATOR, _SUBPROGRAM, _VARIABLE, _NAMESPACE, _FORMAL_PARAMETER}
    | {_UNSPECIFIED_PARAMETERS}
)

_AT_LOCATION, _AT_NAME, _AT_BYTE_SIZE, _AT_BIT_OFFSET, _AT_BIT_SIZE = 0x02, 0x03, 0x0B, 0x0C, 0x0D
_AT_CONST_VALUE, _AT_CONTAINING_TYPE, _AT_UPPER_BOUND, _AT_ARTIFICIAL, _AT_COUNT = 0x1C, 0x1D, 0x2F, 0x34, 0x37
_AT_MEMBER_LOCATION, _AT_DECL_FILE, _AT_DECL_LINE, _AT_DECLARATION, _AT_ENCODING = 0x38, 0x3A, 0x3B, 0x3C, 0x3E
_AT_EXTERNAL, _AT_ABSTRACT_ORIGIN, _AT_SPECIFICATION, _AT_TYPE, _AT_VTABLE_SLOT, _AT_SIGNATURE = (
    *(0x3F, 0x31, 0x47, 0x49, 0x4D, 0x69),
)
_AT_DATA_BIT_OFFSET, _AT_LINKAGE_NAME, _AT_STR_OFFSETS_BASE, _AT_SIBLING, _AT_DECL_COLUMN = 0x6B, 0x6E, 0x72, 0x01, 0x39
_AT_CALLING_CONVENTION, _AT_DELETED, _AT_DEFAULTED = 0x36, 0x8A, 0x8B
_WANTED = frozenset(
    {_AT_LOCATION, _AT_NAME, _AT_BYTE_SIZE, _AT_BIT_OFFSET, _AT_BIT_SIZE, _AT_CONST_VALUE, _AT_CONTAINING_TYPE}
    | {_AT_UPPER_BOUND, _AT_ARTIFICIAL, _AT_COUNT, _AT_MEMBER_LOCATION, _AT_DECL_FILE, _AT_DECL_LINE, _AT_DECLARATION}
    | {_AT_ENCODING, _AT_EXTERNAL, _AT_SPECIFICATION, _AT_TYPE, _AT_VTABLE_SLOT, _AT_SIGNATURE, _AT_DATA_BIT_OFFSET}
    | {_AT_LINKAGE_NAME, _AT_STR_OFFSETS_BASE, _AT_ABSTRACT_ORIGIN, _AT_DECL_COLUMN}
    | {_AT_CALLING_CONVENTION, _AT_DELETED, _AT_DEFAULTED}
)
_PASS_BY_REFERENCE, _DEFAULTED_IN_CLASS = 0x04, 0x01
# Linkage names of destructors, and of constructors that take a reference to what the name has named before.
# Of each only the end is looked for: a pattern for the whole name would be tried anew at each of its bytes.
_SPECIAL = (re.compile(rb"D4Ev\0"), re.compile(rb"C4E(?:RK|R|O)S[0-9A-Z]*_\0"))
_CALL = "operator()"
_ALLOCATORS = frozenset({"operator new", "operator new[]", "operator delete", "operator delete[]"})
_OP_ADDR, _OP_CONSTU, _OP_ADDRX, _OP_PLUS_UCONST, _GNU_ADDR_INDEX = 0x03, 0x10, 0xA1, 0x23, 0xFB
_STATIC_STORAGE = frozenset({_OP_ADDR, _OP_ADDRX, _GNU_ADDR_INDEX})
_OP_CONST8U, _IN_THREAD = 0x0E, frozenset({0x9B, 0xE0})  # form_tls_address, GNU_push_tls_address
_INTEGERS = frozenset({0x05, 0x06, 0x07, 0x08, 0x10, 0x11, 0x12})  # signed, unsigned, characters (DWARF 5, 7.8)
_ENCODING = {0x02: "bool", 0x04: "float", 0x03: "complex", 0x0F: "decimal"}

Chosen = Callable[[str], bool]
"""Whether a unit counts, by its name."""


def layouts(objects: Iterable[Sections], path: str, chosen: Chosen = lambda _name: True) -> UnitTypes:
    """The types of all chosen units. `path`: for messages. Errors: `debug-information-malformed`."""
    aggregates: dict[str, dict[Aggregate, None]] = {}
    variables: dict[str, dict[TypeText, None]] = {}
    closures: dict[str, list[Closure]] = {}
    definitions: list[Definition] = []
    is_described, is_whole = False, True
    try:
        for sections in objects:
            reader = _Reader(sections, chosen)
            reader.run()
            is_described |= reader.has_types  # -g1 has none
            for name, row in reader.aggregates():
                aggregates.setdefault(name, {})[row] = None
            for owner, closure in reader.closures():
                closures.setdefault(owner, []).append(closure)
            for name, kind in reader.variables():
                variables.setdefault(name, {})[kind] = None
            definitions += reader.definitions()
            is_whole &= reader.is_whole
    except (*MALFORMED, RecursionError) as error:
        raise IpbpError(
            "debug-information-malformed",
            f"{path}: its debug information cannot be read: {type(error).__name__}: {error}",
            "Build it again; if that does not help, report it.",
        ) from error
    return UnitTypes(
        {name: tuple(rows) for name, rows in aggregates.items()},
        {name: tuple(rows) for name, rows in variables.items()},
        is_described and is_whole,
        {owner: tuple(rows) for owner, rows in closures.items()},
        tuple(definitions),
        not is_whole,
    )


class _Entry:
    """`found`: attribute -> (form, number or place of the text). `outer`: the entry that it is in. A unit has thousands
    of functions in which nothing is named, so that their names are not asked for."""

    __slots__ = ("_scope", "children", "found", "name", "outer", "tag", "takes_matter", "unit")

    def __init__(
        self, tag: int, name: str, outer: _Entry | None, found: Mapping[int, tuple[int, int]], unit: _Unit
    ) -> None:
        self.tag, self.name, self.outer, self.found, self.unit = tag, name, outer, found, unit
        self.children: list[_Entry] = []
        self._scope: str | None = None
        # Not what a function with a name of its own takes, unless it may copy an object: most entries are parameters.
        self.takes_matter = tag != _SUBPROGRAM or name == _CALL or self._is_constructor

    @property
    def _is_constructor(self) -> bool:
        outer = self.outer
        return outer is not None and outer.tag in _AGGREGATES and outer.name.partition("<")[0] == self.name != ""

    @property
    def scope(self) -> str:
        """Of the entries inside of it."""
        if self._scope is None:
            scope = self.outer.scope if self.outer is not None else ""
            if self.tag in _NAMED:
                scope = f"{scope}::{self.name}" if scope and self.name else self.name or scope
                if _AT_SPECIFICATION in self.found or _AT_ABSTRACT_ORIGIN in self.found:
                    declared = self.unit.reader.declaration(self)
                    scope = declared.scope if declared is not self and declared.scope else scope
            self._scope = scope
        return self._scope

    def call(self, name: str, scope: str) -> None:
        self.name, self._scope = name, scope


@dataclass(frozen=True, slots=True)
class _Abbreviation:
    """`sibling`: offset of the reference to the next sibling, -1 when there is none. `name_at`: of a function that is
    declared and not virtual, the offset of its name in .debug_str; -1 for others. `linkage_at`: likewise of its linkage
    name, of those that the source has."""

    shape: Shape
    is_known: bool
    sibling: int
    name_at: int = -1
    linkage_at: int = -1


@dataclass(slots=True)
class _Unit:
    reader: _Reader
    start: int
    end: int
    section: str
    offsets_base: int
    table_at: int
    first: int
    signature: int = 0
    type_at: int = 0


class _Reader:
    """All units of one set of sections. Entries are known by section and place."""

    def __init__(self, sections: Sections, chosen: Chosen) -> None:
        self.sections, self.chosen = sections, chosen
        self.entries: dict[tuple[str, int], _Entry] = {}
        # Functions that are only declared, and types that are made of one other: what they are in. Most are never asked
        # for.
        self.passed: dict[tuple[str, int], tuple[_Unit, _Entry | None]] = {}
        self.declared_calls: dict[int, tuple[str, int]] = {}
        self.typedefs: list[_Entry] = []
        strings = sections.get(".debug_str", b"")
        self.call_names = frozenset(place for name in (_CALL, *_ALLOCATORS) for place in places_of(strings, name))
        self.special_names = frozenset(
            strings.rfind(0, 0, match.start()) + 1 for ends in _SPECIAL for match in ends.finditer(strings)
        )
        self.by_reference: dict[int, bool] = {}
        self.types: list[_Entry] = []
        self.statics: list[_Entry] = []
        self.in_threads: list[_Entry] = []
        self.calls: list[_Entry] = []
        self.by_signature: dict[int, tuple[str, int]] = {}
        self.texts: dict[int, TypeText] = {}
        self.strings = Texts(sections)
        self.tables: dict[int, dict[int, _Abbreviation]] = {}
        self.is_whole = True  # no type unit is missing

    def run(self) -> None:
        for section in (".debug_types", ".debug_info"):
            for unit in self._units(section):
                self._walk(unit)
        self._name_by_typedefs()

    @property
    def has_types(self) -> bool:
        return any(entry.tag == _BASE or entry.tag in _AGGREGATES for entry in self.entries.values())

    def aggregates(self) -> Iterator[tuple[str, Aggregate]]:
        for entry in self.types:
            if entry.name and _AT_BYTE_SIZE in entry.found and _AT_DECLARATION not in entry.found:
                yield entry.scope, self._aggregate(entry)

    def closures(self) -> Iterator[tuple[str, Closure]]:
        """The types of lambda expressions, each with the function that it is written in. They have no name; gcc calls
        their destructors after them, and all are called by an operator."""
        calls = {
            id(child): entry
            for entry in self.types
            if not entry.name and entry.tag in (_STRUCTURE, _CLASS)
            for child in entry.children
            if child.tag == _SUBPROGRAM and child.name == _CALL
        }
        linkage: dict[int, str] = {}
        places = {self.declared_calls[call]: entry for call, entry in calls.items() if call in self.declared_calls}
        for entry in self.calls:
            closure = places.get(self._place(entry, entry.found[_AT_SPECIFICATION]))
            if closure is not None:
                linkage[id(closure)] = self._text(entry, _AT_LINKAGE_NAME)
        found = {id(entry): entry for entry in calls.values()}
        for entry in sorted(found.values(), key=self._in_source):
            call = next(child for child in entry.children if child.name == _CALL)
            members = [self._member(child) for child in entry.children if child.tag == _MEMBER]
            captures = tuple(f"{member.bit} {member.type.meaning} {member.name}" for member in members)
            takes = tuple(self._type(child, _AT_TYPE).meaning for child in call.children if self._is_taken(child))
            name = self._text(call, _AT_LINKAGE_NAME) or linkage.get(id(entry), "")
            yield entry.scope, Closure(captures, takes, name)

    def _in_source(self, entry: _Entry) -> tuple[int, int, int]:
        return *self._declared(entry), entry.found.get(_AT_DECL_COLUMN, (0, 0))[1]

    @staticmethod
    def _is_taken(entry: _Entry) -> bool:
        return entry.tag == _FORMAL_PARAMETER and _AT_ARTIFICIAL not in entry.found

    def variables(self) -> Iterator[tuple[str, TypeText]]:
        for name, entry, declared in self._with_names(self.statics):
            kind = entry if _AT_TYPE in entry.found else declared
            if not self._is_constant(kind):  # no state
                yield name, self._type(kind, _AT_TYPE)

    def definitions(self) -> Iterator[Definition]:
        for name, entry, declared in self._with_names((*self.statics, *self.in_threads)):
            place = entry if _AT_DECL_LINE in entry.found else declared
            # A definition outside of its class is in the same file as the class unless it says so.
            file = (entry.found.get(_AT_DECL_FILE) or declared.found.get(_AT_DECL_FILE, (0, 0)))[1]
            form, at = entry.found[_AT_LOCATION]
            content = self.sections[entry.unit.section]
            is_fixup = content[at] in (_OP_ADDR, _OP_CONST8U)
            is_here = is_fixup and entry.unit.section == ".debug_info"
            # Nothing behind the operation: the length of the expression stands before it.
            end = at + 9 if is_fixup else uleb(content, at + 1)[1]
            is_plain = form in LEB_BLOCKS and content[at - 1] == end - at
            meaning = b"" if is_plain or form not in LEB_BLOCKS else _meaning(content[at : at + content[at - 1]])
            yield Definition(name, at + 1 if is_here else -1, (file, *self._in_source(place)[1:]), is_plain, meaning)

    def _with_names(self, entries: Iterable[_Entry]) -> Iterator[tuple[str, _Entry, _Entry]]:
        for entry in entries:
            declared = self.declaration(entry)
            name = self._text(entry, _AT_LINKAGE_NAME) or self._text(declared, _AT_LINKAGE_NAME)
            if name or declared.name:
                yield name or declared.scope, entry, declared

    def _units(self, section: str) -> Iterator[_Unit]:
        content = self.sections.get(section, b"")
        place = 0
        while place + 11 < len(content):
            unit = self._unit(section, content, place)
            place = unit.end
            yield unit

    def _unit(self, section: str, content: bytes, start: int) -> _Unit:
        length, version = int.from_bytes(content[start : start + 4], "little"), content[start + 4]
        if length >= 0xFFFFFFF0 or version not in (4, 5):
            raise ValueError(f"version {version} of DWARF, or its 64-bit format")
        kind = content[start + 6] if version == 5 else 2 if section == ".debug_types" else 1
        at = start + (8 if version == 5 else 6)
        table_at = int.from_bytes(content[at : at + 4], "little")
        # A type unit says its signature and where the type is; skeletons have an id (DWARF 5, 7.5.1).
        extra = {2: 12, 6: 12, 4: 8, 5: 8}.get(kind, 0)
        head = start + (12 if version == 5 else 11)
        # Of a split unit the base is implied: behind the header, which version 5 has (DWARF 5, 7.26).
        unit = _Unit(self, start, start + 4 + length, section, 8 if version == 5 else 0, table_at, head + extra)
        if kind in (2, 6):
            unit.signature = int.from_bytes(content[head : head + 8], "little")
            unit.type_at = start + int.from_bytes(content[head + 8 : head + 12], "little")
            self.by_signature[unit.signature] = section, unit.type_at
        return unit

    def _is_chosen(self, unit: _Unit) -> bool:
        """By the unit's own entry alone: a program has thousands of units, and one is asked for."""
        content = self.sections[unit.section]
        code, place = uleb(content, unit.first)
        table = shapes(self.sections.get(".debug_abbrev", b""), unit.table_at, _WANTED)
        shape = next((shape for number, shape in table if number == code), None)
        if shape is None:
            raise KeyError(f"abbreviation {code}")
        if shape.tag != _COMPILE_UNIT:
            return True
        found, _ = shape.read(content, place)
        base = found.get(_AT_STR_OFFSETS_BASE)
        unit.offsets_base = base[1] if base is not None else unit.offsets_base
        return self.chosen(self._string(unit, found.get(_AT_NAME)))

    def _table(self, at: int) -> dict[int, _Abbreviation]:
        if at not in self.tables:
            self.tables[at] = _abbreviations(self.sections.get(".debug_abbrev", b""), at)
        return self.tables[at]

    def _walk(self, unit: _Unit) -> None:
        if not self._is_chosen(unit):
            return
        content, place, end = self.sections[unit.section], unit.first, unit.end
        table = self._table(unit.table_at)
        section, entries, passed = unit.section, self.entries, self.passed
        outer: list[_Entry | None] = []
        parent: _Entry | None = None
        while place < end:
            at = place
            code = content[place]
            place += 1
            if code >= 0x80:
                code, place = uleb(content, at)
            if code == 0:
                if outer:
                    parent = outer.pop()
                continue
            row = table[code]
            shape, tag = row.shape, row.shape.tag
            if not row.is_known:
                if row.sibling >= 0 and shape.has_children and tag != _LEXICAL_BLOCK:
                    target = place + row.sibling
                    place = unit.start + int.from_bytes(content[target : target + 4], "little")
                    continue
                place = shape.end(content, place)
                if shape.has_children:
                    outer.append(parent)
                continue
            if row.name_at >= 0 and not self._is_asked_for(content, place, row):
                behind = place + shape.size
                if shape.has_children and parent is not None and parent.tag in _AGGREGATES:
                    target = place + row.sibling
                    behind = unit.start + int.from_bytes(content[target : target + 4], "little")
                elif shape.has_children:
                    behind = _behind_parameters(content, behind, table)
                if behind >= 0:
                    passed[section, at] = unit, parent
                    place = behind
                    continue
            if tag in _WRAPPERS and not shape.has_children:
                passed[section, at] = unit, parent
                place = shape.end(content, place)
                continue
            if tag == _FORMAL_PARAMETER and parent is not None and not parent.takes_matter and not shape.has_children:
                place = shape.end(content, place)
                continue
            found, place = shape.read(content, place)
            if tag in _UNITS:
                base = found.get(_AT_STR_OFFSETS_BASE)
                unit.offsets_base = base[1] if base is not None else unit.offsets_base
                if shape.has_children:
                    outer.append(parent)
                continue
            name = self._string(unit, found.get(_AT_NAME))
            entry = _Entry(tag, name, parent, found, unit)
            entries[section, at] = entry
            if tag in _AGGREGATES:
                if _AT_SPECIFICATION in found:  # what is declared elsewhere has its name there
                    entry.name = self.declaration(entry).name or name
                entry.call(entry.name, entry.scope)  # before a typedef names what it is in
                self.types.append(entry)
            elif tag == _TYPEDEF:
                self.typedefs.append(entry)
            elif tag == _SUBPROGRAM:
                if _AT_SPECIFICATION in found:
                    self.calls.append(entry)
                elif name == _CALL:
                    self.declared_calls[id(entry)] = section, at
            elif tag == _VARIABLE and (parent is None or parent.tag not in _AGGREGATES):
                location = found.get(_AT_LOCATION)
                if location is not None and self._is_static(content, location):
                    self.statics.append(entry)
                elif location is not None and self._is_in_thread(content, location):
                    self.in_threads.append(entry)
            if parent is not None and parent.tag != _NAMESPACE and parent.takes_matter:
                parent.children.append(entry)
            if shape.has_children:
                outer.append(parent)
                parent = entry

    def _is_asked_for(self, content: bytes, place: int, row: _Abbreviation) -> bool:
        """Whether a function that is only declared is one of those that say something of a type."""
        for at, names in ((row.name_at, self.call_names), (row.linkage_at, self.special_names)):
            if at >= 0 and int.from_bytes(content[place + at : place + at + 4], "little") in names:
                return True
        return False

    def _is_static(self, content: bytes, location: tuple[int, int]) -> bool:
        form, at = location
        if form not in ANY_BLOCK:
            return False
        return content[at] in _STATIC_STORAGE

    @staticmethod
    def _is_in_thread(content: bytes, location: tuple[int, int]) -> bool:
        form, at = location
        return form in LEB_BLOCKS and content[at] == _OP_CONST8U and content[at + 9] in _IN_THREAD

    def _name_by_typedefs(self) -> None:
        """`typedef struct { ... } name;` names the type. A lambda expression's has none, whatever else leads to it."""
        for entry in self.typedefs:
            if entry.name:
                target = self._target(entry, _AT_TYPE)
                if target is None or target.tag not in _AGGREGATES or target.name:
                    continue
                beside = f"{target.scope}::{entry.name}" if target.scope else entry.name
                if entry.scope == beside and not any(child.name == _CALL for child in target.children):
                    target.call(entry.name, entry.scope)

    def _is_constant(self, entry: _Entry) -> bool:
        """Whether a variable is const, or an array of what is."""
        target = self._target(entry, _AT_TYPE)
        while target is not None and target.tag in (_ARRAY, _TYPEDEF, _VOLATILE):
            target = self._target(target, _AT_TYPE)
        return target is not None and target.tag == _CONST

    def declaration(self, entry: _Entry) -> _Entry:
        """The entry itself, or the first of those that it refers to for what it is called."""
        for attribute in (_AT_SPECIFICATION, _AT_ABSTRACT_ORIGIN):
            target = self._target(entry, attribute)
            if target is not None:
                return self.declaration(target)
        return entry

    def _target(self, entry: _Entry, attribute: int) -> _Entry | None:
        found = entry.found.get(attribute)
        if found is None:
            return None
        form, value = found
        if form == REF_SIG8:
            return self._of_type_unit(value)
        key = self._place(entry, found)
        target = self.entries.get(key) or self._passed(key)
        if target is not None and _AT_SIGNATURE in target.found:
            return self._of_type_unit(target.found[_AT_SIGNATURE][1]) or target
        return target

    @staticmethod
    def _place(entry: _Entry, found: tuple[int, int]) -> tuple[str, int]:
        """What a reference of an entry means."""
        form, value = found
        return (entry.unit.section, value + entry.unit.start) if form in LOCAL_REFERENCES else (".debug_info", value)

    def _passed(self, key: tuple[str, int]) -> _Entry | None:
        known = self.passed.get(key)
        if known is None:
            return None
        unit, outer = known
        content = self.sections[unit.section]
        code, place = uleb(content, key[1])
        shape = self._table(unit.table_at)[code].shape
        found, _ = shape.read(content, place)
        entry = self.entries[key] = _Entry(shape.tag, self._string(unit, found.get(_AT_NAME)), outer, found, unit)
        return entry

    def _of_type_unit(self, signature: int) -> _Entry | None:
        known = self.by_signature.get(signature)
        self.is_whole &= known is not None
        return self.entries.get(known) if known is not None else None

    def _text(self, entry: _Entry, attribute: int) -> str:
        return self._string(entry.unit, entry.found.get(attribute))

    def _string(self, unit: _Unit, found: tuple[int, int] | None) -> str:
        return self.strings.text(found, unit.section, unit.offsets_base) if found is not None else ""

    def _aggregate(self, entry: _Entry) -> Aggregate:
        members, bases, slots = [], [], {}
        for child in entry.children:
            if child.tag == _MEMBER and _AT_DECLARATION not in child.found and _AT_EXTERNAL not in child.found:
                members.append(self._member(child))
            elif child.tag == _ENUMERATOR:
                members.append(self._enumerator(child))
            elif child.tag == _INHERITANCE:
                bases.append(self._member(child))
            elif child.tag == _SUBPROGRAM and _AT_VTABLE_SLOT in child.found and _AT_ARTIFICIAL not in child.found:
                slots[self._slot(child)] = self._text(child, _AT_LINKAGE_NAME) or child.name
        kind = _AGGREGATES[entry.tag]
        size = entry.found[_AT_BYTE_SIZE][1]
        is_by_reference = self._is_by_reference(entry)
        return Aggregate(
            kind,
            size,
            tuple(members),
            tuple(bases),
            _Slots(sorted(slots.items())),
            is_by_reference,
            frozenset(child.name for child in entry.children if child.tag == _SUBPROGRAM) & _ALLOCATORS,
            *self._declared(entry),
        )

    def _is_by_reference(self, entry: _Entry) -> bool:
        """Whether a function that takes such a value gets its address (Itanium C++ ABI, 3.1.1): clang says so, gcc 12
        says what it follows from."""
        known = self.by_reference.get(id(entry))
        if known is None:
            self.by_reference[id(entry)] = False  # a type is no part of itself
            said = entry.found.get(_AT_CALLING_CONVENTION)
            known = said[1] == _PASS_BY_REFERENCE if said is not None else self._is_no_trivial_copy(entry)
            self.by_reference[id(entry)] = known
        return known

    def _is_no_trivial_copy(self, entry: _Entry) -> bool:
        has_deleted = has_defaulted = False
        for child in entry.children:
            if child.tag == _SUBPROGRAM:
                if _AT_VTABLE_SLOT in child.found:
                    return True
                if _AT_ARTIFICIAL in child.found or not self._is_special(child, entry):
                    continue
                is_defaulted = child.found.get(_AT_DEFAULTED, (0, 0))[1] == _DEFAULTED_IN_CLASS
                if _AT_DELETED not in child.found and not is_defaulted:
                    return True
                has_deleted |= _AT_DELETED in child.found
                has_defaulted |= is_defaulted and child.name[:1] != "~"
            elif child.tag in (_MEMBER, _INHERITANCE) and _AT_EXTERNAL not in child.found:
                # The place of a virtual base is computed.
                if child.tag == _INHERITANCE and child.found.get(_AT_MEMBER_LOCATION, (UDATA, 0))[0] in ANY_BLOCK:
                    return True
                part = self._held(child)
                if part is not None and self._is_by_reference(part):
                    return True
        return has_deleted and not has_defaulted

    def _is_special(self, child: _Entry, owner: _Entry) -> bool:
        """Whether it is a destructor, or a constructor that copies or moves."""
        if child.name.startswith("~"):
            return True
        taken = [row for row in child.children if self._is_taken(row)]
        wanted = f"struct {owner.scope}"
        return len(taken) == 1 and self._type(taken[0], _AT_TYPE).meaning in (f"{wanted} &", f"{wanted} &&")

    def _held(self, entry: _Entry) -> _Entry | None:
        """The class that a member or a base is of, also one in an array."""
        target = self._target(entry, _AT_TYPE)
        while target is not None and target.tag in (_ARRAY, _TYPEDEF, *_QUALIFIERS):
            target = self._target(target, _AT_TYPE)
        return target if target is not None and target.tag in _AGGREGATES else None

    def _member(self, entry: _Entry) -> Member:
        found = entry.found
        form, value = found.get(_AT_MEMBER_LOCATION, (UDATA, 0))
        if form in ANY_BLOCK:
            value = self._operand(entry, value)
        bit = value * 8
        width = found[_AT_BIT_SIZE][1] if _AT_BIT_SIZE in found else 0
        if _AT_DATA_BIT_OFFSET in found:
            bit += found[_AT_DATA_BIT_OFFSET][1]
        elif width and _AT_BIT_OFFSET in found:
            # Counted from the high end of the storage unit (DWARF 3, 5.5.6).
            storage = found[_AT_BYTE_SIZE][1] if _AT_BYTE_SIZE in found else self._size(self._target(entry, _AT_TYPE))
            bit += storage * 8 - _signed(found[_AT_BIT_OFFSET]) - width
        return Member(entry.name, bit, width, self._type(entry, _AT_TYPE), *self._declared(entry))

    def _enumerator(self, entry: _Entry) -> Member:
        value = _signed(entry.found[_AT_CONST_VALUE])
        return Member(entry.name, value, 0, TypeText("", ""), *self._declared(entry))

    def _slot(self, entry: _Entry) -> int:
        form, value = entry.found[_AT_VTABLE_SLOT]
        return self._operand(entry, value) if form in ANY_BLOCK else value

    def _operand(self, entry: _Entry, at: int) -> int:
        """The number in an expression of one operation that pushes or adds one; a place of its own for others."""
        content = self.sections[entry.unit.section]
        if content[at] in (_OP_CONSTU, _OP_PLUS_UCONST):
            return uleb(content, at + 1)[0]
        if 0x30 <= content[at] <= 0x4F:  # DW_OP_lit0 to lit31
            return content[at] - 0x30
        return 0

    def _declared(self, entry: _Entry) -> tuple[int, int]:
        return entry.found.get(_AT_DECL_FILE, (0, 0))[1], entry.found.get(_AT_DECL_LINE, (0, 0))[1]

    def _size(self, entry: _Entry | None) -> int:
        while entry is not None and _AT_BYTE_SIZE not in entry.found:
            entry = self._target(entry, _AT_TYPE)
        return entry.found[_AT_BYTE_SIZE][1] if entry is not None else 0

    def _type(self, entry: _Entry, attribute: int, depth: int = 0) -> TypeText:
        if attribute not in entry.found:
            return TypeText("void", "void")
        target = self._target(entry, attribute)
        if target is None:
            return TypeText("?", "?")
        known = self.texts.get(id(target))
        if known is None:
            if depth > 40:
                return TypeText("...", "...")
            known = self.texts[id(target)] = self._describe(target, depth + 1)
        return known

    def _describe(self, entry: _Entry, depth: int) -> TypeText:
        tag = entry.tag
        if tag in _QUALIFIERS:
            return self._type(entry, _AT_TYPE, depth)
        if tag == _TYPEDEF:
            inner = self._type(entry, _AT_TYPE, depth)
            return TypeText(inner.meaning, entry.name)
        if tag in _POINTERS:
            inner = self._type(entry, _AT_TYPE, depth)
            return TypeText(f"{inner.meaning} {_POINTERS[tag]}", f"{inner.shown} {_POINTERS[tag]}")
        if tag in _AGGREGATES:
            return self._named(entry)
        if tag == _BASE:
            return self._base(entry)
        if tag == _ARRAY:
            inner = self._type(entry, _AT_TYPE, depth)
            bounds = "".join(f"[{self._bound(child)}]" for child in entry.children if child.tag == _SUBRANGE)
            return TypeText(inner.meaning + bounds, inner.shown + bounds)
        if tag == _SUBROUTINE:
            return self._function(entry, depth)
        if tag == _POINTER_TO_MEMBER:
            inner, owner = self._type(entry, _AT_TYPE, depth), self._type(entry, _AT_CONTAINING_TYPE, depth)
            return TypeText(f"{inner.meaning} {owner.meaning}::*", f"{inner.shown} {owner.shown}::*")
        return TypeText(entry.scope or entry.name or "?", entry.name or "?")

    def _named(self, entry: _Entry) -> TypeText:
        kind = _AGGREGATES[entry.tag]
        if entry.tag == _STRUCTURE or entry.tag == _CLASS:
            kind = "struct"
        if entry.name:
            return TypeText(f"{kind} {entry.scope}", f"{_AGGREGATES[entry.tag]} {entry.scope}")
        size = entry.found.get(_AT_BYTE_SIZE, (0, 0))[1]
        parts = [
            self._enumerator(child) if child.tag == _ENUMERATOR else self._member(child)
            for child in entry.children
            if child.tag in (_ENUMERATOR, _MEMBER, _INHERITANCE) and _AT_EXTERNAL not in child.found
        ]
        inside = "; ".join(f"{part.bit}:{part.width} {part.type.meaning} {part.name}" for part in parts)
        return TypeText(f"{kind} {size} {{{inside}}}", f"{kind} without a name")

    def _base(self, entry: _Entry) -> TypeText:
        encoding, size = entry.found.get(_AT_ENCODING, (0, 0))[1], self._size(entry)
        if encoding in _INTEGERS:
            return TypeText(f"integer of {size}", entry.name)
        return TypeText(f"{_ENCODING.get(encoding, entry.name)} of {size}", entry.name)

    def _bound(self, entry: _Entry) -> str:
        if _AT_COUNT in entry.found:
            return str(entry.found[_AT_COUNT][1])
        form, value = entry.found.get(_AT_UPPER_BOUND, (0, -1))
        if form in LEB_BLOCKS or form in LOCAL_REFERENCES or value < 0:
            return ""  # known at run time only
        return str(value + 1) if value < 0xFFFFFFFF else ""

    def _function(self, entry: _Entry, depth: int) -> TypeText:
        result = self._type(entry, _AT_TYPE, depth)
        taken = [
            self._type(child, _AT_TYPE, depth) if child.tag == _FORMAL_PARAMETER else TypeText("...", "...")
            for child in entry.children
            if child.tag in (_FORMAL_PARAMETER, _UNSPECIFIED_PARAMETERS)
        ]
        return TypeText(
            f"{result.meaning} ({', '.join(text.meaning for text in taken)})",
            f"{result.shown} ({', '.join(text.shown for text in taken)})",
        )


def _meaning(location: bytes) -> bytes:
    try:
        return b"".join(piece.meaning for piece in pieces(location))
    except IndexError:  # longer than its length of one byte says: one with many pieces
        return b""


class _Slots(dict[int, str]):
    """A mapping that can be a part of what is hashed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _behind_parameters(content: bytes, place: int, table: Mapping[int, _Abbreviation]) -> int:
    """Where the entries inside of a function end; -1 when there are others than what it takes, such as types."""
    while code := content[place]:
        row = table.get(code) if code < 0x80 else None  # a number of two bytes: read in the usual way
        if row is None or row.shape.has_children or row.shape.tag not in _PARAMETERS:
            return -1
        place = row.shape.end(content, place + 1)
    return place + 1


def _abbreviations(content: bytes, place: int) -> dict[int, _Abbreviation]:
    return {code: _abbreviation(shape) for code, shape in shapes(content, place, _WANTED)}


def _abbreviation(shape: Shape) -> _Abbreviation:
    form, sibling = shape.places.get(_AT_SIBLING, (0, -1))
    sibling = sibling if form == REF4 else -1
    name_at = -1
    if shape.tag == _SUBPROGRAM and shape.size >= 0 and (sibling >= 0 or not shape.has_children):
        form, at = shape.places.get(_AT_NAME, (0, -1))
        is_plain = form == STRP and _AT_DECLARATION in shape.given and _AT_VTABLE_SLOT not in shape.given
        name_at = at if is_plain else -1
    form, at = shape.places.get(_AT_LINKAGE_NAME, (0, -1))
    linkage_at = at if form == STRP and _AT_ARTIFICIAL not in shape.given else -1
    return _Abbreviation(shape, shape.tag in _KNOWN, sibling, name_at, linkage_at)


def _signed(found: tuple[int, int]) -> int:
    """A constant that may be negative: the data forms do not say (DWARF 5, 7.5.5)."""
    form, value = found
    bits = {0x0B: 8, 0x05: 16, 0x06: 32, 0x07: 64}.get(form, 0)
    return value - (1 << bits) if bits and value >> (bits - 1) else value
