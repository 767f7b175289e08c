"""A breakpoint by line means the line that has this number in the file when it is set.

gdb looks for the number in all code, also in code that was compiled when it was another line's: in functions that no
patch has replaced and whose lines have moved since. Such places are none of the breakpoint's (`retired` switches them
off). Where it has no other, a breakpoint by the number that the line had then stands in for it.
"""

from __future__ import annotations

import os
import re
from typing import Sequence

import gdb

from gdb_ipbp.posts import Posts
from ipbp.host.inferior import OldText
from ipbp.host.texts import numbers_of, text_at

_texts: list[OldText] = []
_others: dict[int, frozenset[str]] = {}
"""Number of a breakpoint -> texts in which the number that it was set by is another line's."""
_stand_ins: dict[int, int] = {}
_of_stand_in: list[frozenset[str]] = []  # the same of the one that is being set


def follow(texts: Sequence[OldText]) -> None:
    """From now on these are the texts that code was compiled from."""
    _texts[:] = texts


def forget() -> None:
    """The program has ended, and with it all places that we know of."""
    for number in list(_stand_ins):
        _drop(number)
    _others.clear()
    _texts.clear()


def is_elsewhere(point: gdb.Breakpoint, row: gdb.BreakpointLocation) -> bool:
    """Whether this place of it is in code in which its number is another line's."""
    others = _others.get(point.number)
    return others is not None and text_at(_texts, row.address, row.fullname or "") in others


def has_stand_in(point: gdb.Breakpoint) -> bool:
    return point.number in _stand_ins


def set_by(point: gdb.Breakpoint) -> None:
    """It has just been set, by the file as it is now."""
    found = re.search(r"(?:^|:|-line )(\d+)$", point.location or "")
    path = next((row.fullname for row in point.locations if row.fullname), None)
    if found is None or path is None:
        return
    if _of_stand_in:
        _others[point.number] = _of_stand_in[0]
        return
    line, numbers = int(found[1]), numbers_of(_texts, path, int(found[1]))
    _others[point.number] = frozenset(text for text, number in numbers.items() if number != line)
    if all(is_elsewhere(point, row) for row in point.locations):
        any(_set_stand_in(point, path, line, number, numbers) for number in sorted({*numbers.values()} - {0, line}))


def settle() -> None:
    """A patch may have brought places of their own."""
    for point in gdb.breakpoints():  # of all, also of those that are deleted meanwhile
        if point.is_valid() and has_stand_in(point) and not all(is_elsewhere(point, row) for row in point.locations):
            _drop(point.number)


def deleted(point: gdb.Breakpoint) -> None:
    number = point.number
    _others.pop(number, None)
    if number in _stand_ins:  # not at once: gdb goes through its breakpoints
        Posts.follow()
        Posts.post(lambda: _drop(number))


def _set_stand_in(point: gdb.Breakpoint, path: str, line: int, number: int, numbers: dict[str, int]) -> bool:
    every = {row.digest for row in _texts if os.path.realpath(row.path) == os.path.realpath(path)}
    _of_stand_in.append(frozenset(text for text in every if numbers.get(text) != number))
    try:
        other = gdb.Breakpoint(source=path, line=number, type=point.type, temporary=point.temporary)
    finally:
        _of_stand_in.clear()
    if all(is_elsewhere(other, row) for row in other.locations):
        other.delete()
        return False
    other.condition = point.condition
    _stand_ins[point.number] = other.number
    what = f"line {line} of {os.path.basename(path)} was line {number} when this code was compiled"
    gdb.write(f"[{what}: breakpoint {other.number} stands in for {point.number}]\n")
    return True


def _drop(number: int) -> None:
    ours = _stand_ins.pop(number, None)
    for point in gdb.breakpoints():
        if point.number == ours:
            point.delete()
