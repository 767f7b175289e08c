"""Types whose layout an edit changed: what lives in the process has the old one, and new code would read it wrong.

A named type can be anywhere (a variable, the heap, a frame that goes on), so that such an edit is refused, with the
type and what changed in it, unless the user says that nothing holds one. So can a future that waits: its layout is
that of a named type, which has one variant for each place where it may wait.

A closure's type has no name that other code could use: what was made of the old one goes on in old code, and the
functions that know the new one are new functions beside the old ones, whatever their names are. The same goes for
closures that are numbered otherwise, and for those of which it is not certain which is which. What holds a closure
that is another now is refused like any other type.

A function that takes or returns something else is another function, too: calls under way, tables and pointers that
exist go on with the old one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ipbp.errors import Refusal
from ipbp.graph.layouts import UnitTypes
from ipbp.graph.types import DebugTypes, Part, TypeLayout

ALL = "all"
"""In `allowed`: every type."""
Likeness = Callable[[Sequence[str], Sequence[str]], float]
"""How much the code of some old functions is that of some new ones, both by linkage names; 1 is the same code."""
_KINDS = r"(closure|async\w*|gen\w*)"
# rustc_codegen_ssa, debuginfo/type_names.rs: `{closure_env#0}` is the type, `{closure#0}` the function.
_BODY = re.compile(rf"(.*)::\{{{_KINDS}_env#(\d+)\}}\Z", re.DOTALL)
_STATE = re.compile(r"(.*::\{(?!closure)\w+_env#\d+\}(?:<.*>)?)::(Unresumed|Returned|Panicked|Suspend\d+)\Z", re.DOTALL)
# In the legacy mangling the signature is a part of the hash (rustc_symbol_mangling, `legacy.rs`). That is worth having:
# what optimised code does not use may be missing from its debug information.
_LEGACY = re.compile(r"17h[0-9a-f]{16}E")
_TABLE = re.compile(r" as (.*)>::\{vtable_type\}\Z", re.DOTALL)
_POINTER = re.compile(r"dyn (.*?)(?:, alloc::alloc::Global>|)\Z", re.DOTALL)
CLOSURE = "closure"


def _never(name: str) -> bool:
    return False


def _none(changed: Collection[str]) -> tuple[Refusal, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class TypeChanges:
    """`renewed`: linkage names of new functions that are not the next version of what has their name. `refusals`:
    `layout-changed` and `variable-type-changed`. `notes`: which closures and functions that means, in words.
    `is_renewed`: whether a type is a closure that is another now, or made for one. `successors`: linkage name of a new
    function -> that of the old one whose entry leads to it from now on. `doubts`: what else is refused when the code of
    these functions changed. `agreed`: types of another layout, as the user allowed. `sides`: of a unit of C or C++ what
    both sides describe, where they do."""

    renewed: frozenset[str]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()
    is_renewed: Callable[[str], bool] = _never
    successors: Mapping[str, str] = field(default_factory=dict)
    doubts: Callable[[Collection[str]], tuple[Refusal, ...]] = _none
    agreed: tuple[str, ...] = ()
    sides: tuple[UnitTypes, UnitTypes] | None = None


NO_CHANGES = TypeChanges(frozenset(), ())


def type_changes(
    old: DebugTypes,
    new: DebugTypes,
    file: str,
    allowed: Collection[str] = (),
    likeness: Likeness | None = None,
) -> TypeChanges:
    """What the types say about an edit. `file`: of the unit, for messages. `allowed`: names of types that the user
    knows not to be alive, or ALL. `likeness`: tells closures apart that capture the same; without it each is the one
    that has its number."""
    marks = _renewed_closures(old, new, likeness)
    retyped = [
        linkage
        for linkage, taken in new.signatures.items()
        if old.signatures.get(linkage, taken) != taken
        and not _LEGACY.search(linkage)
        and not _knows_closure(new.functions.get(linkage, ""), marks)
    ]
    renewed = {linkage for linkage, name in new.functions.items() if _knows_closure(name, marks)}
    known = _folded(old)
    changed = {
        name: (before, after)
        for name, after in _folded(new).items()
        if (before := known.get(name)) is not None
        and before - after
        and after - before
        and not _knows_closure(name, marks)
    }
    causes = list(_causes(changed))
    refusals = [
        _layout_changed(name, _difference(*changed[name]), file) for name in causes if not _is_allowed(name, allowed)
    ]
    refusals += [
        _layout_changed(name, f"it holds {part}, which is another now", file)
        for name, part in _holders(old, new, marks)
        if name not in changed and not _is_allowed(name, allowed)
    ]
    refusals += _changed_variables(old, new, file)
    notes = [
        f"closures that '{owner}' made before go on with their old code: what they capture, or their number, is another"
        for owner in dict.fromkeys(mark.owner for mark in marks)
    ]
    notes += [_retyped(new.functions.get(row, row), old.signatures[row], new.signatures[row]) for row in retyped]
    return TypeChanges(
        frozenset(renewed.union(retyped)),
        tuple(refusals),
        tuple(notes),
        lambda name: _knows_closure(name, marks),
        agreed=tuple(name for name in causes if _is_allowed(name, allowed)),
    )


def _retyped(name: str, before: str, after: str) -> str:
    return f"'{name}' was {before} and is {after}: code that still runs, and pointers that exist, call the old one"


def _is_allowed(name: str, allowed: Collection[str]) -> bool:
    return ALL in allowed or name in allowed


def _changed_variables(old: DebugTypes, new: DebugTypes, file: str) -> Iterator[Refusal]:
    """Variables of another type. A mangled name may hold the type, so that the source's name counts as well."""
    gone = {name: kind for linkage, (name, kind) in old.variables.items() if linkage not in new.variables}
    for linkage, (name, kind) in new.variables.items():
        before = old.variables[linkage][1] if linkage in old.variables else gone.get(name, kind)
        if before != kind:
            yield _variable_changed(name, before, kind, file)


_Owner = tuple[str, str]
"""The function that a closure is written in, and its generic arguments as they stand in the closure's type."""
_Number = tuple[str, str]
"""Kind and number of a closure or coroutine within its owner."""


@dataclass(frozen=True, slots=True)
class _Closure:
    """`kind` and `number`: within its owner, "" for all of them, coroutines included."""

    owner: str
    arguments: str
    kind: str = ""
    number: str = ""

    def is_known_to(self, name: str) -> bool:
        """Whether a function or type is this closure, or made for it."""
        if self.owner not in name or self.arguments not in name:
            return False
        if not self.kind:
            return re.search(rf"{re.escape(self.owner)}::\{{{_KINDS}#\d+\}}", name.replace("_env#", "#")) is not None
        return f"{self.owner}::{{{self.kind}#{self.number}}}" in name.replace("_env#", "#")


def _renewed_closures(old: DebugTypes, new: DebugTypes, likeness: Likeness | None) -> list[_Closure]:
    """Closures that capture something else now, or may be others; all of a function that has another number of
    them."""
    before, after = _closures(old), _closures(new)
    sides = (_Code(old), _Code(new))
    found = []
    for owner, rows in after.items():
        known = before.get(owner, rows)
        if known.keys() != rows.keys():
            found.append(_Closure(*owner))
            continue
        plain = [number for number in rows if number[0] == CLOSURE]
        found += [_Closure(*owner, *number) for number in plain if rows[number] != known[number]]
        kept = [number for number in plain if rows[number] == known[number]]
        if likeness is not None:
            found += [_Closure(*owner, *number) for number in _doubtful(owner, kept, rows, sides, likeness)]
    return found


def _closures(types: DebugTypes) -> dict[_Owner, dict[_Number, frozenset[TypeLayout]]]:
    """By function: its closures' layouts by their numbers."""
    found: dict[_Owner, dict[_Number, frozenset[TypeLayout]]] = {}
    for name, layouts in types.layouts.items():
        if "_env#" in name and (match := _BODY.match(plain := without_arguments(name))):
            found.setdefault((match[1], name[len(plain) :]), {})[match[2], match[3]] = layouts
    return found


def _doubtful(
    owner: _Owner,
    numbers: Sequence[_Number],
    layouts: Mapping[_Number, frozenset[TypeLayout]],
    sides: tuple[_Code, _Code],
    likeness: Likeness,
) -> Iterator[_Number]:
    """Closures of one function that capture the same as another one and may be that: their code does not tell that
    they kept their places."""
    groups: dict[frozenset[TypeLayout], list[_Number]] = {}
    for number in numbers:
        groups.setdefault(layouts[number], []).append(number)
    for members in groups.values():
        if len(members) == 1:
            continue
        before, after = ({number: side.of(owner, number) for number in members} for side in sides)
        own = {number: likeness(before[number], after[number]) for number in members}
        edited = [number for number in members if own[number] < 1]
        if any(
            max(likeness(before[other], after[number]), likeness(before[number], after[other])) >= own[number]
            for number in edited
            for other in edited
            if other != number
        ):
            yield from edited


class _Code:
    """The functions of one side by their qualified names."""

    def __init__(self, types: DebugTypes) -> None:
        self.functions = types.functions

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for linkage, name in sorted(self.functions.items()):
            found.setdefault(name, []).append(linkage)
        return found

    def of(self, owner: _Owner, number: _Number) -> list[str]:
        """Linkage names of the functions that are this closure, or of all that are made for it when it has none."""
        bodies = self.by_name.get(f"{owner[0]}::{{{number[0]}#{number[1]}}}{owner[1]}")
        if bodies:
            return bodies
        closure = _Closure(*owner, *number)
        return [linkage for name, rows in self.by_name.items() if closure.is_known_to(name) for linkage in rows]


def _knows_closure(name: str, marks: Iterable[_Closure]) -> bool:
    return any(mark.is_known_to(name) for mark in marks)


def _holders(old: DebugTypes, new: DebugTypes, marks: Sequence[_Closure]) -> Iterator[tuple[str, str]]:
    """Types of both sides that hold a renewed closure without its being in their name: a future that keeps one while
    it waits. With the closure's type."""
    if not marks:
        return
    for name, layouts in new.layouts.items():
        if name not in old.layouts or _knows_closure(name, marks):
            continue
        parts = {part.type for row in (*layouts, *old.layouts[name]) for part in row.parts}
        held = sorted(part for part in parts if _knows_closure(part, marks))
        if held:
            yield (match[1] if (match := _STATE.match(name)) else name), held[0]


def _folded(types: DebugTypes) -> dict[str, frozenset[TypeLayout]]:
    """The layouts, those of a coroutine's states as parts of the coroutine's own."""
    found: dict[str, frozenset[TypeLayout]] = {}
    inner: dict[str, set[Part]] = {}
    for name, layouts in types.layouts.items():
        match = _STATE.match(name) if "_env#" in name else None
        if match is None:
            found[name] = layouts
            continue
        for row in layouts:
            inner.setdefault(match[1], set()).update(
                Part(f"{part.name} in {match[2]}", part.offset, part.type, part.value) for part in row.parts
            )
    for name, parts in inner.items():
        found[name] = frozenset(
            TypeLayout(row.size, (*row.parts, *sorted(parts, key=lambda part: (part.offset, part.name, part.type))))
            for row in found.get(name, ())
        )
    return found


def without_arguments(name: str) -> str:
    """A qualified name without the generic arguments at its end."""
    if not name.endswith(">"):
        return name
    depth = 0
    plain = name.replace("->", "--")
    for place in range(len(plain) - 1, -1, -1):
        depth += {">": 1, "<": -1}.get(plain[place], 0)
        if depth == 0:
            return name[:place]
    return name


def _causes(changed: Mapping[str, tuple[frozenset[TypeLayout], frozenset[TypeLayout]]]) -> Iterator[str]:
    """Of the changed types those that did not only change because another one did: it is a field of theirs, or in
    their name."""
    traits = {match[1] for name in changed if (match := _TABLE.search(name))}
    for name, (before, after) in changed.items():
        if traits and (match := _POINTER.search(name)) and match[1] in traits:
            continue
        inside = [other for other in changed if other != name and other in name]
        same_fields = {_outline(row) for row in before} == {_outline(row) for row in after}
        follows = any(part.type in changed and part.type != name for row in after for part in row.parts)
        if not inside and not (same_fields and follows):
            yield name


def _outline(layout: TypeLayout) -> frozenset[tuple[str, str, int | None]]:
    return frozenset((part.name, part.type, part.value) for part in layout.parts)


def _difference(before: Iterable[TypeLayout], after: Iterable[TypeLayout]) -> str:
    old, new = (next(iter(sorted(rows, key=repr))) for rows in (before, after))
    words = []
    one, other = ({_key(part): part for part in row.parts} for row in (old, new))
    words += [f"'{name}' is new" for name, _ in other.keys() - one.keys()]
    words += [f"'{name}' is gone" for name, _ in one.keys() - other.keys()]
    for key in one.keys() & other.keys():
        if one[key].type != other[key].type:
            words.append(f"'{key[0]}' was {one[key].type or 'nothing'} and is {other[key].type or 'nothing'}")
        elif one[key] != other[key]:
            words.append(f"'{key[0]}' moved")
    if old.size != new.size:
        words.append(f"it had {old.size} bytes and has {new.size}")
    return ", ".join(sorted(words)[:4]) or "its parts are others"


def _key(part: Part) -> tuple[str, int]:
    return part.name or "discriminant", 0 if part.value is None else 1


def _layout_changed(name: str, words: str, file: str) -> Refusal:
    return Refusal(
        "layout-changed",
        f"the layout of the type '{name}' changed ({words}), and the program may hold values of the old one",
        f"Restart the program; or, when no such value is alive, `hotpatch --allow-layout '{name}'`.",
        name,
        file,
    )


def _variable_changed(name: str, before: str, after: str, file: str) -> Refusal:
    return Refusal(
        "variable-type-changed",
        f"the variable '{name}' was of the type {before} and is now of {after}",
        "Give it a new name, or restart the program.",
        name,
        file,
    )
