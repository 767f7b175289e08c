"""Code that nobody comes to any more has no places of the user's breakpoints by line and by function.

At the entry of a replaced function is the jump to the new code, where gdb would stop once more. That holds for
breakpoints that are there when code becomes old, and for those that the user sets later. Nor have breakpoints by line
places where their number is another line's (`by_line`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Optional

import gdb

from gdb_ipbp import by_line
from gdb_ipbp.settings import tell
from ipbp.host.inferior import Ranges

_KINDS = (gdb.BP_BREAKPOINT, gdb.BP_HARDWARE_BREAKPOINT)
_ranges: list[tuple[int, int]] = []
_retired: set[tuple[int, Optional[str]]] = set()
"""Number of a breakpoint and the function of a location in old code that we have disabled. When symbols come or go gdb
numbers locations anew, moves them past a prologue as it finds it then, and disables those of that function's name."""


def follow(ranges: Ranges) -> None:
    """From now on this is that code; what an earlier call took away elsewhere is back."""
    if not _are_followed:
        for events, called in _FOLLOWED:
            events.connect(called)
        _are_followed.append(True)
    _ranges[:] = ranges
    for point in gdb.breakpoints():
        _ask_again(point)
        _retire(point)
    by_line.settle()


def _forget(event: gdb.ExitedEvent) -> None:
    # In the next process the code that was old is what runs.
    by_line.forget()
    follow(())
    _retired.clear()
    for events, called in _FOLLOWED:
        events.disconnect(called)
    _are_followed.clear()


def _on_created(point: gdb.Breakpoint) -> None:
    by_line.set_by(point)
    _retire(point)


def _retire(point: gdb.Breakpoint) -> None:
    if point.type not in _KINDS or not point.location or point.location.startswith("*"):
        return  # an address is the user's own choice
    places = [(row, _is_old(row.address) or by_line.is_elsewhere(point, row)) for row in point.locations]
    has_other = not all(is_old for _, is_old in places) or by_line.has_stand_in(point)
    for row, is_old in places:
        key = (point.number, row.function)
        if is_old and has_other:
            if row.enabled:
                row.enabled = False
                _retired.add(key)
        elif key in _retired and not row.enabled:
            row.enabled = True
            if point.enabled:
                point.enabled = True  # in a running program this alone puts it into memory
    if not has_other:
        _retired.difference_update({key for key in _retired if key[0] == point.number})


def _ask_again(point: gdb.Breakpoint) -> None:
    """gdb does not stop at a place where a condition makes no sense (a variable that this code has not). New places in
    a function of that name are not asked about anew."""
    if point.type in _KINDS and point.condition:
        with suppress(gdb.error):  # it makes no sense anywhere
            tell(f"condition {point.number} {point.condition}")


def _is_old(address: int) -> bool:
    return any(start <= address < end for start, end in _ranges)


_FOLLOWED = (
    (gdb.events.breakpoint_created, _on_created),
    (gdb.events.breakpoint_deleted, by_line.deleted),
    (gdb.events.exited, _forget),
)
_are_followed: list[bool] = []
