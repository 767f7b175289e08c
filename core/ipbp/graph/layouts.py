"""How the C and C++ types of one unit lie in memory, as its debug information says it.

The text of a type is equal for two types when a value of the one may be read as the other: typedefs and qualifiers
are looked through, integers of one size are one, pointers are what they point to by name, and a type without a name
is what it consists of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TypeText:
    """`meaning`: equal for types of one representation. `shown`: as the source has it."""

    meaning: str
    shown: str


@dataclass(frozen=True, slots=True)
class Member:
    """A member, a base class or an enumerator. `bit`: where it begins, counted from the start of the type; of an
    enumerator its value. `width`: bits of a bit-field, else 0. `file`, `line`: where it is declared; `file` is a
    number of the unit's line table."""

    name: str
    bit: int
    width: int
    type: TypeText
    file: int
    line: int


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`kind`: "struct", "class", "union" or "enum". `size`: bytes. `slots`: number in the table of virtual functions ->
    linkage name, of those that the class declares itself. `is_by_reference`: who takes or returns a value gets its
    address (C++: what has a copy constructor or a destructor of its own). `allocators`: the class's own operators that
    give its objects memory, or take it back."""

    kind: str
    size: int
    members: tuple[Member, ...]
    bases: tuple[Member, ...]
    slots: Mapping[int, str]
    is_by_reference: bool
    allocators: frozenset[str]
    file: int
    line: int


@dataclass(frozen=True, slots=True)
class Closure:
    """A lambda expression's type: what it captures and takes, in words that are equal for equal ones. `linkage`: of the
    function that it calls, "" where the debug information does not say it."""

    captures: tuple[str, ...]
    takes: tuple[str, ...]
    linkage: str


SourcePlace = tuple[int, int, int]
"""File (a number of the unit's line table), line, and column; 0 where that is not said."""


@dataclass(frozen=True, slots=True)
class Definition:
    """Of a variable. `name`: its linkage name or qualified name; `field`: where in .debug_info its address stands, -1
    where it stands elsewhere. `is_plain`: what is at that address is its value, nothing has to be computed. `meaning`:
    equal for those of which the value is computed alike (`formats.debug_parts`)."""

    name: str
    field: int
    place: SourcePlace
    is_plain: bool
    meaning: bytes = b""


@dataclass(frozen=True, slots=True)
class UnitTypes:
    """`aggregates`: by qualified name, each definition of that name. `variables`: of static storage, by linkage name or
    qualified name, each type that a variable of that name has. `is_described`: there is debug information. `closures`:
    of each function, by qualified name, in the order of the source. `definitions`: of the variables that have room,
    constant or not. `is_lost`: there was some, in a file of its own or in type units, that cannot be read."""

    aggregates: Mapping[str, tuple[Aggregate, ...]]
    variables: Mapping[str, tuple[TypeText, ...]]
    is_described: bool
    closures: Mapping[str, tuple[Closure, ...]] = field(default_factory=dict)
    definitions: tuple[Definition, ...] = ()
    is_lost: bool = False
