"""A breakpoint by line means the line that has this number in the file when it is set.

lldb looks for the number in all code, also in code that was compiled when it was another line's: in functions that no
patch has replaced and whose lines have moved since. lldb tells nobody that a breakpoint was set, and a place that is
switched off would stay so in the next process; so it is at the stop that a place is found to be none of the
breakpoint's, and the program goes on. Where a breakpoint has no other place it stops.
"""

from __future__ import annotations

import json
import os
from typing import Optional, Sequence

import lldb

from ipbp.host.inferior import OldText
from ipbp.host.texts import is_shown, numbers_of, text_at


class _Known:
    """`newest`: number of the newest breakpoint when `follow` was last called. `files`: source -> copy of what it was
    then. `others`: number of a breakpoint -> texts in which the number that it was set by is another line's."""

    texts: Sequence[OldText] = ()
    newest = 0
    files: dict[str, str] = {}  # noqa: RUF012 - of this lldb, not of an instance
    others: dict[int, set[str]] = {}  # noqa: RUF012


_known = _Known()


def follow(target: lldb.SBTarget, texts: Sequence[OldText]) -> None:
    """From now on these are the texts that code was compiled from."""
    for point in target.breakpoint_iter():
        if _known.texts:
            _others(point)  # by what was known when it was set
    _known.texts = texts
    _known.newest = max((point.GetID() for point in target.breakpoint_iter()), default=0)
    _known.files = {os.path.realpath(row.path): row.copy for row in texts if row.copy and is_shown(row)}


def is_elsewhere(thread: lldb.SBThread) -> bool:
    """Whether it has stopped in a place that is none of its breakpoint's."""
    if thread.GetStopReason() != lldb.eStopReasonBreakpoint:
        return False
    target = thread.GetProcess().GetTarget()
    count = thread.GetStopReasonDataCount()
    data = [thread.GetStopReasonDataAtIndex(index) for index in range(count)]
    pairs = list(zip(data[::2], data[1::2]))
    return bool(pairs) and all(_is_elsewhere(target.FindBreakpointByID(int(a)), int(b)) for a, b in pairs)


def _is_elsewhere(point: lldb.SBBreakpoint, number: int) -> bool:
    places = {
        location.GetID(): text_at(_known.texts, location.GetLoadAddress(), _path(location)) in _others(point)
        for location in point
    }
    return places.get(number, False) and not all(places.values())


def _others(point: lldb.SBBreakpoint) -> set[str]:
    number = point.GetID()
    if number not in _known.others:
        found = set[str]()
        place = _place(point) if number > _known.newest else None
        if place is not None:
            path, line = place
            copy = _known.files.get(os.path.realpath(path), "")
            rows = numbers_of(_known.texts, path, line, copy)
            found = {text for text, other in rows.items() if other != line}
        _known.others[number] = found
    return _known.others[number]


def _place(point: lldb.SBBreakpoint) -> Optional[tuple[str, int]]:
    """The file and the number that it was set by."""
    stream = lldb.SBStream()
    if not point.SerializeToStructuredData().GetAsJSON(stream).Success():
        return None
    resolver = json.loads(stream.GetData()).get("Breakpoint", {}).get("BKPTResolver", {})
    paths = [path for location in point if (path := _path(location))]
    if resolver.get("Type") != "FileAndLine" or not paths:
        return None
    return paths[0], int(resolver["Options"]["LineNumber"])


def _path(location: lldb.SBBreakpointLocation) -> str:
    return str(location.GetAddress().GetLineEntry().GetFileSpec().fullpath or "")
