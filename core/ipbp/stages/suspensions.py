"""Where a future that waits goes on: whether each place to wait is the one that it was before the edit.

A suspended future knows its place by a number alone. The layout of the coroutine tells most of them apart, for what
is kept while it waits, and for what it waits, are parts of it. Where two places keep the same and wait for the same
type, only the code can tell that they were not exchanged, or one taken out and another put in: the source lines that
are as they were must stand between the same of them. The lines are those of the debug information; a line is known by
its instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from ipbp.errors import Refusal
from ipbp.graph.types import DebugTypes, Part, TypeLayout, Waits
from ipbp.stages.code_words import CodeWords
from ipbp.stages.type_changes import ALL

Lines = Callable[[Waits, int], list[tuple[int, int]]]
"""(offset, line) for a block: see `formats.line_rows`."""
_BEGIN, _END, _FIRST = 0, 1, 3  # values of the state: see `Waits`


@dataclass(frozen=True, slots=True)
class CoroutineSide:
    """One side of the edit. `words`: of its functions, `lines`: of their code."""

    types: DebugTypes
    words: CodeWords
    lines: Lines


def doubtful_suspensions(
    old: CoroutineSide, new: CoroutineSide, file: str, changed: Collection[str], allowed: Collection[str] = ()
) -> tuple[Refusal, ...]:
    """`suspension-ambiguous` for each coroutine in which two places to wait may have changed roles. `changed`: linkage
    names of the functions whose code is not what it was. `allowed`: names of types that the user knows not to be
    alive, or ALL."""
    if ALL in allowed or not changed:
        return ()
    bodies = [_by_name(side.types) for side in (old, new)]
    edited = {side.types.functions[link] for side in (old, new) for link in changed if link in side.types.functions}
    found = []
    for name in sorted(new.types.waits.keys() & old.types.waits.keys() - set(allowed)):
        body = name.replace("_env#", "#")
        before, after = (side.get(body, frozenset()) for side in bodies)
        # Without a function of its own it is a part of others.
        is_edited = body in edited if before and after else any(body in row or name in row for row in edited)
        alike = _interchangeable(name, new.types) if is_edited else ()
        if alike and (not before or before != after or any(_crosses(name, row, alike, old, new) for row in after)):
            found.append(_refusal(name, file))
    return tuple(found)


def _by_name(types: DebugTypes) -> dict[str, frozenset[str]]:
    """Linkage names by the qualified name of the function."""
    found: dict[str, set[str]] = {}
    for linkage, name in types.functions.items():
        if "::{" in name:
            found.setdefault(name, set()).add(linkage)
    return {name: frozenset(rows) for name, rows in found.items()}


def _interchangeable(name: str, types: DebugTypes) -> frozenset[int]:
    """States of the coroutine that keep the same as another one."""
    groups: dict[frozenset[TypeLayout], list[int]] = {}
    for layout in types.layouts.get(name, ()):
        for part in layout.parts:
            if part.value is not None and part.value >= _FIRST:
                rows = types.layouts.get(part.type, frozenset())
                groups.setdefault(frozenset(replace(row, parts=_sorted(row)) for row in rows), []).append(part.value)
    return frozenset(value for values in groups.values() if len(values) > 1 for value in values)


def _sorted(layout: TypeLayout) -> tuple[Part, ...]:
    return tuple(sorted(set(layout.parts), key=lambda part: (part.offset, part.name, part.type)))


@dataclass(frozen=True, slots=True)
class _Body:
    """The lines of a coroutine in their order. `words`: of each line; `states`: which of them each line waits in;
    `passed`: how many places to wait stand before each line."""

    words: list[tuple[str, ...]]
    states: list[frozenset[int]]
    passed: list[int]

    def line_of(self, state: int) -> tuple[str, ...]:
        return next(words for words, states in zip(self.words, self.states, strict=True) if state in states)


def _crosses(name: str, linkage: str, alike: Collection[int], old: CoroutineSide, new: CoroutineSide) -> bool:
    """Whether a line that is as it was stands between other places to wait than before."""
    bodies = [_body(name, linkage, side) for side in (old, new)]
    if None in bodies:
        return True
    one, other = (body for body in bodies if body is not None)
    before, after = ({state: body.line_of(state) for state in alike} for body in (one, other))
    edited = [state for state in alike if before[state] != after[state]]
    if not edited:
        return False
    if not {before[state] for state in edited}.isdisjoint(after[state] for state in edited):
        return True
    matcher = SequenceMatcher(None, one.words, other.words, autojunk=False)
    for start, at, size in matcher.get_matching_blocks():
        if one.passed[start : start + size] != other.passed[at : at + size]:
            return True
    return _shares_an_edited_line(one, other, alike)


def _shares_an_edited_line(one: _Body, other: _Body, alike: Collection[int]) -> bool:
    """Whether two of the places in question are in one line, and that changed."""
    for body, opposite in ((one, other), (other, one)):
        for words, states in zip(body.words, body.states, strict=True):
            if len(states & set(alike)) > 1 and words not in opposite.words:
                return True
    return False


def _body(name: str, linkage: str, side: CoroutineSide) -> _Body | None:
    """None when the object does not tell where the lines are."""
    block = side.words.block_of(linkage)
    for waits in side.types.waits[name]:
        rows = side.lines(waits, block) if block >= 0 else []
        if rows:
            by_line = dict(_by_line(side.words, block, rows, waits.line))
            waiting: dict[int, set[int]] = {}
            for state, line in waits.line.items():
                if state >= _FIRST:
                    waiting.setdefault(line, set()).add(state)
            lines = sorted(by_line.keys() | waiting.keys())
            states = [frozenset(waiting.get(line, ())) for line in lines]
            passed = [sum(len(row) for row in states[:index]) for index in range(len(lines))]
            found = [by_line.get(line, []) for line in lines]
            words = [tuple(_plain(word, row) for word in line) for line, row in zip(found, states, strict=True)]
            return _Body(words, states, passed)
    return None


def _plain(word: str, states: Collection[int]) -> str:
    """Without the number of the state that a line which waits stores."""
    head, _, value = word.rpartition(", ")
    return head if head.startswith("mov byte ptr") and value in {str(state) for state in states} else word


def _by_line(
    words: CodeWords, block: int, rows: list[tuple[int, int]], bounds: Mapping[int, int]
) -> Iterator[tuple[int, list[str]]]:
    """The words of each line of the coroutine's own source."""
    found: dict[int, list[str]] = {}
    index = 0
    for offset, word in words.of_block(block):
        while index + 1 < len(rows) and rows[index + 1][0] <= offset:
            index += 1
        line = rows[index][1]
        # The line where it begins also unpacks what was kept, which says nothing of the places to wait.
        if bounds.get(_BEGIN, 0) < line <= bounds.get(_END, line):
            found.setdefault(line, []).append(word)
    yield from found.items()


def _refusal(name: str, file: str) -> Refusal:
    return Refusal(
        "suspension-ambiguous",
        f"'{name}' waits in several places that keep the same, and which of them is which after this edit is not "
        "certain: a future that waits now might go on at another place",
        f"Edit it without moving its awaits, or restart; when none waits, `hotpatch --allow-layout '{name}'`.",
        name,
        file,
    )
