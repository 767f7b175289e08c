"""Types whose layout an edit changed: what lives in the process has the old one, and new code would read it wrong.

A named type can be anywhere (a variable, the heap, a frame that goes on), so that such an edit is refused, with the
type and what changed in it, unless the user says that nothing holds one. A closure's type has no name that other
code could use: what was made of the old one goes on in old code, and the functions that know the new one are new
functions beside the old ones, whatever their names are. The same goes for closures that are numbered otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ipbp.errors import Refusal
from ipbp.graph.types import DebugTypes, Part, TypeLayout

ALL = "all"
"""In `allowed`: every type."""
_CLOSURE = re.compile(r"(.*)::\{closure_env#(\d+)\}\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TypeChanges:
    """`renewed`: linkage names of new functions that are not the next version of what has their name. `refusals`:
    `layout-changed` and `variable-type-changed`. `notes`: which closures that means, in words."""

    renewed: frozenset[str]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()


NO_CHANGES = TypeChanges(frozenset(), ())


def type_changes(old: DebugTypes, new: DebugTypes, file: str, allowed: Collection[str] = ()) -> TypeChanges:
    """What the types say about an edit. `file`: of the unit, for messages. `allowed`: names of types that the user
    knows not to be alive, or ALL."""
    marks = _renewed_closures(old, new)
    renewed = frozenset(linkage for linkage, name in new.functions.items() if _knows_closure(name, marks))
    changed = {
        name: (before, after)
        for name, after in new.layouts.items()
        if (before := old.layouts.get(name)) is not None
        and before - after
        and after - before
        and not _knows_closure(name, marks)
    }
    refusals = [
        _layout_changed(name, _difference(*changed[name]), file)
        for name in _causes(changed)
        if ALL not in allowed and name not in allowed
    ]
    refusals += _changed_variables(old, new, file)
    notes = [
        f"closures that '{owner}' made before go on with their old code: what they capture, or their number, is another"
        for owner in dict.fromkeys(mark.owner for mark in marks)
    ]
    return TypeChanges(renewed, tuple(refusals), tuple(notes))


def _changed_variables(old: DebugTypes, new: DebugTypes, file: str) -> Iterator[Refusal]:
    """Variables of another type. A mangled name may hold the type, so that the source's name counts as well."""
    gone = {name: kind for linkage, (name, kind) in old.variables.items() if linkage not in new.variables}
    for linkage, (name, kind) in new.variables.items():
        before = old.variables[linkage][1] if linkage in old.variables else gone.get(name, kind)
        if before != kind:
            yield _variable_changed(name, before, kind, file)


_Owner = tuple[str, str]
"""The function that a closure is written in, and its generic arguments as they stand in the closure's type."""


@dataclass(frozen=True, slots=True)
class _Closure:
    """`number`: within its owner, "" for all of them."""

    owner: str
    arguments: str
    number: str

    def is_known_to(self, name: str) -> bool:
        """Whether a function or type is this closure, or made for it."""
        number = f"{self.number}}}" if self.number else ""
        ways = (f"{self.owner}::{{closure#{number}", f"{self.owner}::{{closure_env#{number}")
        return any(way in name for way in ways) and self.arguments in name


def _renewed_closures(old: DebugTypes, new: DebugTypes) -> list[_Closure]:
    """Closures that capture something else now; all of a function that has another number of them."""
    before, after = _closures(old), _closures(new)
    found = []
    for owner, rows in after.items():
        known = before.get(owner, rows)
        if known.keys() != rows.keys():
            found.append(_Closure(*owner, ""))
        else:
            found += [_Closure(*owner, number) for number in rows if rows[number] != known[number]]
    return found


def _closures(types: DebugTypes) -> dict[_Owner, dict[str, frozenset[TypeLayout]]]:
    """By function: its closures' layouts by their numbers."""
    found: dict[_Owner, dict[str, frozenset[TypeLayout]]] = {}
    for name, layouts in types.layouts.items():
        if "{closure_env#" in name and (match := _CLOSURE.match(plain := _without_arguments(name))):
            found.setdefault((match[1], name[len(plain) :]), {})[match[2]] = layouts
    return found


def _knows_closure(name: str, marks: Iterable[_Closure]) -> bool:
    return any(mark.is_known_to(name) for mark in marks)


def _without_arguments(name: str) -> str:
    """A name without the generic arguments at its end."""
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
    for name, (before, after) in changed.items():
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
