"""C and C++ types that an edit laid out otherwise: what lives in the process has the old layout.

A named type may be anywhere: in a variable, on the heap, in a frame that goes on. Where both sides of an edit know it
and it lies in memory in another way, new code would read old values wrong, and that is refused with the member that
moved. A type that only one side knows is free: nothing old is read by what is new. What does not move is no change:
another name for a member or a type, signed for unsigned, one more enumerator, one more alternative in a union that
has the room for it, a member that is gone and left a gap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ipbp.errors import Refusal
from ipbp.graph.layouts import Aggregate, Member, TypeText, UnitTypes
from ipbp.stages.coroutines import is_frame
from ipbp.stages.cxx_names import plain_variable

ALL = "all"
"""In `allowed`: every type."""
_SHOWN = 3
_HANDED = {False: "the value itself", True: "its address"}
_CLOSURE = re.compile(r"<lambda\(|\(lambda at ")  # in names of instances of templates, as gcc and clang write them
_ANY_POINTER = "void *"
_ARRAY = re.compile(r"(\[\d*\])+\Z")
_Types = tuple[TypeText, ...]


@dataclass(frozen=True, slots=True)
class LayoutChanges:
    """`refusals`: `layout-changed`, `variable-type-changed` and `variable-split`. `notes`: members that have another
    name now. `agreed`: types that changed, as the user allowed."""

    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]
    agreed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Difference:
    """`follows`: it may come of another type that has become larger or smaller."""

    words: str
    file: int = 0
    line: int = 0
    follows: bool = False


def layout_changes(
    old: UnitTypes,
    new: UnitTypes,
    file: str,
    allowed: Collection[str] = (),
    file_name: Callable[[int], str] = lambda _number: "",
) -> LayoutChanges:
    """What the types of a unit say about an edit. `file`: of the unit, for messages. `allowed`: names of types of which
    the user knows that no value is alive, or ALL. `file_name`: the base name of a file of the new unit's line table."""
    if old is new:  # the edit left the debug information of types as it was
        return LayoutChanges((), ())
    same = _Same(old, new)
    changed: dict[str, tuple[Aggregate, list[_Difference]]] = {}
    notes: list[str] = []
    for name, after in new.aggregates.items():
        if _CLOSURE.search(name) or is_frame(name):
            continue  # what is made for a closure is made anew with it (`stages.closures`); see `stages.coroutines`
        pair = _changed_pair(old.aggregates.get(name, ()), after)
        if pair is None:
            continue
        differences = list(_differences(*pair, same, _Slots(old, new, name)))
        if differences:
            changed[name] = pair[1], differences
        notes += _renamed_notes(name, *pair, same)
    free = set(changed) if ALL in allowed else {name for name in changed if name in allowed}
    told = changed.keys() - free
    refusals = [
        _layout_changed(name, *changed[name], file, file_name)
        for name in changed
        if name in told and not _only_follows(name, *changed[name], told)
    ]
    refusals += _changed_variables(old, new, file, same)
    refusals += _other_values(old, new, file)
    return LayoutChanges(tuple(refusals), tuple(notes), tuple(name for name in changed if name in free))


class _Same:
    """Whether two types are read alike. A type may have another name now; what it is called by is then the new one."""

    def __init__(self, old: UnitTypes, new: UnitTypes) -> None:
        self._old, self._new = old, new
        self._names: dict[str, str] | None = None

    def __call__(self, one: TypeText, other: TypeText) -> bool:
        before, after = one.meaning, other.meaning
        if before == after or "?" in (before, after):
            return True
        if before.endswith("*") and after.endswith("*") and _ANY_POINTER in (before, after):
            return True
        return self._renamed(before) == after

    def _renamed(self, text: str) -> str:
        if self._names is None:
            self._names = dict(_renamed_types(self._old, self._new))
        for before, after in self._names.items():
            text = re.sub(rf"(struct|union|enum) {re.escape(before)}(?![\w:<])", rf"\g<1> {after}", text)
        return text


def _renamed_types(old: UnitTypes, new: UnitTypes) -> Iterator[tuple[str, str]]:
    """Types that the new side knows by another name: of two that only one side has, with the same members."""
    gone = {name: rows for name, rows in old.aggregates.items() if name not in new.aggregates}
    fresh = {name: rows for name, rows in new.aggregates.items() if name not in old.aggregates}
    for name, rows in gone.items():
        alike = [other for other, candidates in fresh.items() if _outlines(rows) == _outlines(candidates)]
        if len(alike) == 1:
            yield name, alike[0]


def _outlines(rows: Iterable[Aggregate]) -> set[object]:
    return {
        (row.size, tuple((m.name, m.bit, m.width) for m in row.members), tuple(b.bit for b in row.bases))
        for row in rows
    }


def _changed_pair(before: tuple[Aggregate, ...], after: tuple[Aggregate, ...]) -> tuple[Aggregate, Aggregate] | None:
    """A definition that is not among the new ones, and one that was not among the old ones. One name may have several,
    in different functions, say."""
    if before == after:
        return None
    known, wanted = {_key(row): row for row in before}, {_key(row): row for row in after}
    gone = [row for key, row in known.items() if key not in wanted]
    fresh = [row for key, row in wanted.items() if key not in known]
    return (gone[0], fresh[0]) if gone and fresh else None


def _key(row: Aggregate) -> object:
    """Without the places in the source."""
    parts = tuple((m.name, m.bit, m.width, m.type.meaning) for m in (*row.bases, *row.members))
    return row.kind.replace("class", "struct"), row.size, parts, row.slots, row.is_by_reference, row.allocators


def _differences(old: Aggregate, new: Aggregate, same: _Same, slots: _Slots) -> Iterator[_Difference]:
    if old.kind == "enum" or new.kind == "enum":
        yield from _changed_enumerators(old, new)
        return
    if ("union" in (old.kind, new.kind)) and old.kind != new.kind:
        yield _Difference(f"it was a {old.kind} and is a {new.kind}", new.file, new.line)
        return
    yield from _changed_bases(old, new, same)
    yield from _changed_members(old, new, same)
    yield from slots.differences(old, new)
    if old.size != new.size:
        yield _Difference(f"it had {old.size} bytes and has {new.size}", new.file, new.line, follows=True)
    if old.is_by_reference != new.is_by_reference:
        before, after = (_HANDED[row.is_by_reference] for row in (old, new))
        words = f"functions that take or return it by value were given {before} and are given {after}"
        yield _Difference(words, new.file, new.line, follows=True)
    for name in sorted(old.allocators ^ new.allocators):
        words = f"it has its own {name} now" if name in new.allocators else f"it has no {name} of its own any more"
        yield _Difference(words, new.file, new.line)


def _changed_enumerators(old: Aggregate, new: Aggregate) -> Iterator[_Difference]:
    values = {member.name: member.bit for member in old.members}
    for member in new.members:
        before = values.get(member.name, member.bit)
        if before != member.bit:
            yield _Difference(f"enumerator '{member.name}' was {before} and is {member.bit}", member.file, member.line)
    if old.kind != new.kind:
        yield _Difference(f"it was a {old.kind} and is a {new.kind}", new.file, new.line)
    elif old.size != new.size:
        yield _Difference(f"it had {old.size} bytes and has {new.size}", new.file, new.line)


def _changed_bases(old: Aggregate, new: Aggregate, same: _Same) -> Iterator[_Difference]:
    for base in new.bases:
        known = next((row for row in old.bases if same(row.type, base.type)), None)
        if known is None:
            yield _Difference(f"the base class {base.type.shown} is new", base.file or new.file, base.line or new.line)
        elif known.bit != base.bit:
            words = f"the base class {base.type.shown} moved from {_place(known)} to {_place(base)}"
            yield _Difference(words, base.file or new.file, base.line or new.line, follows=True)
    for base in old.bases:
        if not any(same(base.type, row.type) for row in new.bases):
            yield _Difference(f"the base class {base.type.shown} is gone", new.file, new.line)


def _changed_members(old: Aggregate, new: Aggregate, same: _Same) -> Iterator[_Difference]:
    known = _by_name(old.members)
    renamed = _renamed(old, new, same)
    for name, member in _by_name(new.members).items():
        before = known.get(name) or known.get(renamed.get(name, ""))
        shown = f"member '{member.name}'" if member.name else "a member without a name"
        if before is None:
            if new.kind != "union":
                yield _Difference(f"{shown} is new", member.file, member.line)
        elif not same(before.type, member.type):
            words = f"{shown} was {before.type.shown} and is {member.type.shown}"
            if before.type.shown == member.type.shown:
                words = f"{shown} is of a type '{member.type.shown}' that means something else now"
            yield _Difference(words, member.file, member.line)
        elif before.width != member.width:
            yield _Difference(f"{shown} had {_bits(before)} and has {_bits(member)}", member.file, member.line)
        elif before.bit != member.bit:
            words = f"{shown} moved from {_place(before)} to {_place(member)}"
            yield _Difference(words, member.file, member.line, follows=True)
    if old.size != new.size:
        left = [name for name in known if name not in _by_name(new.members) and name not in renamed.values()]
        yield from (_Difference(f"member '{name}' is gone", new.file, new.line) for name in left if name)


def _by_name(members: Iterable[Member]) -> dict[str, Member]:
    """Members without a name are told apart by their order."""
    found: dict[str, Member] = {}
    for member in members:
        name = member.name or f"\0{sum(key.startswith(chr(0)) for key in found)}"
        found[name] = member
    return found


def _renamed(old: Aggregate, new: Aggregate, same: _Same) -> dict[str, str]:
    """New name -> old name of members that only one side has, at one place and of one type."""
    before, after = _by_name(old.members), _by_name(new.members)
    gone = {(row.bit, row.width): row for name, row in before.items() if name not in after and row.name}
    found = {}
    for name, row in after.items():
        known = gone.get((row.bit, row.width)) if name not in before and row.name else None
        if known is not None and same(known.type, row.type) and old.kind != "union":
            found[name] = known.name
    return found


def _renamed_notes(name: str, old: Aggregate, new: Aggregate, same: _Same) -> list[str]:
    return [
        f"member '{before}' of {new.kind} {name} is called '{after}' now and keeps its value"
        for after, before in _renamed(old, new, same).items()
    ]


class _Slots:
    """The table of virtual functions of one class. Overriding what a base declares adds no slot."""

    def __init__(self, old: UnitTypes, new: UnitTypes, name: str) -> None:
        self._old, self._new, self._name = old, new, name

    def differences(self, old: Aggregate, new: Aggregate) -> Iterator[_Difference]:
        end = _end_of_slots(self._old, self._name)
        for slot, name in new.slots.items():
            before = old.slots.get(slot)
            if before is not None and _unscoped(before) != _unscoped(name):
                moved = next((place for place, known in old.slots.items() if known == name), None)
                words = f"is new in its place {slot}" if moved is None else f"moved from place {moved} to {slot}"
                yield _Difference(f"the virtual function '{name}' {words}", new.file, new.line)
            elif before is None and slot >= end:
                yield _Difference(f"the virtual function '{name}' is new", new.file, new.line)


def _end_of_slots(types: UnitTypes, name: str, depth: int = 0) -> int:
    """How many virtual functions a class has, with those of its bases."""
    ends = [0]
    for row in types.aggregates.get(name, ()):
        ends += [slot + 1 for slot in row.slots]
        if depth < 16:
            ends += [_end_of_slots(types, base.type.meaning.partition(" ")[2], depth + 1) for base in row.bases]
    return max(ends)


def _unscoped(name: str) -> str:
    # The two destructors of the ABI, D1 and D0, are called by one name or the other.
    return re.sub(r"D[012]Ev\Z", "DEv", name)


def _only_follows(name: str, new: Aggregate, differences: Iterable[_Difference], changed: Collection[str]) -> bool:
    """Whether a type is only another because one that it holds is, which is told."""
    if not all(row.follows for row in differences):
        return False
    held = {_ARRAY.sub("", part.type.meaning).partition(" ")[2] for part in (*new.bases, *new.members)}
    return any(other in held for other in changed if other != name)


def _changed_variables(old: UnitTypes, new: UnitTypes, file: str, same: _Same) -> Iterator[Refusal]:
    for name, before, after in _same_variables(old.variables, new.variables):
        if any(not any(same(one, other) for other in before) for one in after) and any(
            not any(same(one, other) for other in after) for one in before
        ):
            yield Refusal(
                "variable-type-changed",
                f"the variable '{name}' was of the type {before[0].shown} and is now of {after[0].shown}",
                "Give it a new name, or restart the program.",
                name,
                file,
            )


def _other_values(old: UnitTypes, new: UnitTypes, file: str) -> Iterator[Refusal]:
    """Variables of which a compiler keeps something else than their value, and now means another value by it: LLVM's
    GlobalOpt keeps whether one that only ever has two values has its second one."""
    before, after = _meanings(old), _meanings(new)
    for name, meanings in after.items():
        if not meanings <= before.get(name, meanings):
            yield Refusal(
                "variable-split",
                f"the compiler keeps of the static variable '{name}' which of two values it has, and the edit changes "
                "which values these are, so that what it is now would become another value",
                "Give it a new name, leave the values that it is given as they are, or restart.",
                name,
                file,
            )


def _meanings(types: UnitTypes) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = {}
    for row in types.definitions:
        found.setdefault(plain_variable(row.name), set()).add(row.meaning)
    return found


def _same_variables(old: Mapping[str, _Types], new: Mapping[str, _Types]) -> Iterator[tuple[str, _Types, _Types]]:
    """Those that both sides have, also by other C++ names (`stages.linkage`)."""
    for name, types in new.items():
        if name in old:
            yield name, old[name], types
    gone, come = ([name for name in one if name not in other] for one, other in ((old, new), (new, old)))
    if not gone or not any(name.startswith("_Z") for name in (*gone, *come)):
        return
    called = {plain_variable(name): name for name in gone}
    for name in come:
        known = called.get(plain_variable(name))
        if known is not None:
            yield name, old[known], new[name]


def _place(member: Member) -> str:
    if member.width == 0 and member.bit % 8 == 0:
        return f"byte {member.bit // 8}"
    return f"bit {member.bit}"


def _bits(member: Member) -> str:
    return f"{member.width} bits" if member.width else "whole bytes"


def _layout_changed(
    name: str, row: Aggregate, differences: list[_Difference], file: str, file_name: Callable[[int], str]
) -> Refusal:
    words = ", ".join(difference.words for difference in differences[:_SHOWN])
    first = differences[0]
    shown = first if first.file and first.line else row  # an enumerator has no line of its own
    source = file_name(shown.file)
    place = f" ({source}:{shown.line})" if source and shown.line else ""
    return Refusal(
        "layout-changed",
        f"{row.kind} {name}: {words}{place}; the program may hold values of the old layout",
        f"Restart the program; or, when no such value is alive, `hotpatch --allow-layout '{name}'`.",
        name,
        file,
    )
