"""A breakpoint by line means the line that has this number in the file when it is set.

lldb looks for the number in all code, also in code that was compiled when it was another line's: in functions that no
patch has replaced and whose lines have moved since. A place that is switched off would stay so in the next process; so
it is at the stop that a place is found to be none of the breakpoint's, and the program goes on.

Where a breakpoint has no other place, one by the number that the line had then stands in for it. lldb tells nobody that
a breakpoint was set, but lets commands be overridden: before one that lets the program go on we look what is new, and
leave it to lldb to carry it out. A client of a debug adapter uses no commands: there it stops.
"""

from __future__ import annotations

import json
import os
from typing import Optional, Sequence

import lldb

from ipbp.host.inferior import OldText
from ipbp.host.texts import is_shown, numbers_of, text_at
from lldb_ipbp.stops import breakpoints_of, is_internal

_RESUMING = (
    *("process continue", "process launch", "thread continue", "thread until"),
    *(f"thread step-{how}" for how in ("in", "over", "out", "inst", "inst-over")),
)


class _Known:
    """`pid`: of the process that `texts` are of. `newest`: number of the newest breakpoint when `follow` was last
    called. `files`: source -> copy of what it was then. `others`: number of a breakpoint -> texts in which the number
    that it was set by is another line's. `stand_ins`: number of a breakpoint -> number of the one for it."""

    pid = 0
    texts: Sequence[OldText] = ()
    newest = 0
    files: dict[str, str] = {}  # noqa: RUF012 - of this lldb, not of an instance
    others: dict[int, set[str]] = {}  # noqa: RUF012
    stand_ins: dict[int, int] = {}  # noqa: RUF012
    debugger: Optional[lldb.SBDebugger] = None  # whose commands are overridden


_known = _Known()


def follow(target: lldb.SBTarget, texts: Sequence[OldText]) -> None:
    """From now on these are the texts that code was compiled from."""
    for point in target.breakpoint_iter():
        if _known.texts:
            _others(point)  # by what was known when it was set
    _known.pid, _known.texts = int(target.GetProcess().GetProcessID()), texts
    if texts and _known.debugger is None:
        _known.debugger = target.GetDebugger()
        for name in _RESUMING:
            _known.debugger.GetCommandInterpreter().SetCommandOverrideCallback(name, _before)
    _known.newest = max((point.GetID() for point in target.breakpoint_iter()), default=0)
    _known.files = {os.path.realpath(row.path): row.copy for row in texts if row.copy and is_shown(row)}


def is_elsewhere(thread: lldb.SBThread) -> bool:
    """Whether it has stopped in a place that is none of its breakpoint's."""
    if thread.GetStopReason() != lldb.eStopReasonBreakpoint:
        return False
    target, pairs = thread.GetProcess().GetTarget(), breakpoints_of(thread)
    if any(is_internal(number) for number, _ in pairs):
        return False
    return bool(pairs) and all(_is_elsewhere(target.FindBreakpointByID(a), b) for a, b in pairs)


def _is_elsewhere(point: lldb.SBBreakpoint, number: int) -> bool:
    places = {
        location.GetID(): text_at(_known.texts, location.GetLoadAddress(), _path(location)) in _others(point)
        for location in point
    }
    return places.get(number, False) and (not all(places.values()) or point.GetID() in _known.stand_ins)


def _before(*arguments: object) -> bool:
    """The program is about to go on. False: the command is lldb's own."""
    assert _known.debugger is not None
    target = _known.debugger.GetSelectedTarget()
    if int(target.GetProcess().GetProcessID()) != _known.pid:
        _known.texts = ()
    for number in list(_known.stand_ins):
        _follow_stand_in(target, target.FindBreakpointByID(number), number)
    ours = set(_known.stand_ins.values())
    for point in list(target.breakpoint_iter()) if _known.texts else ():
        if point.GetID() not in _known.stand_ins and point.GetID() not in ours and _is_all_elsewhere(point):
            _set_stand_in(target, point)
    return False


def _is_all_elsewhere(point: lldb.SBBreakpoint) -> bool:
    others = _others(point)
    return bool(others) and all(
        text_at(_known.texts, location.GetLoadAddress(), _path(location)) in others for location in point
    )


def _follow_stand_in(target: lldb.SBTarget, point: lldb.SBBreakpoint, number: int) -> None:
    """It goes with its breakpoint, and when a patch has brought that a place of its own."""
    other = target.FindBreakpointByID(_known.stand_ins[number])
    if not point.IsValid() or not _known.texts or not _is_all_elsewhere(point):
        del _known.stand_ins[number]
        target.BreakpointDelete(other.GetID())
    elif not other.IsValid() and point.IsOneShot():
        target.BreakpointDelete(number)
    else:
        _make_alike(other, point)


def _set_stand_in(target: lldb.SBTarget, point: lldb.SBBreakpoint) -> None:
    path, line = _place(point) or ("", 0)
    real = os.path.realpath(path)
    numbers = numbers_of(_known.texts, path, line, _known.files.get(real, ""))
    every = {row.digest for row in _known.texts if os.path.realpath(row.path) == real}
    for number in sorted({*numbers.values()} - {0, line}):
        other = target.BreakpointCreateByLocation(path, number)
        _known.others[other.GetID()] = {text for text in every if numbers.get(text) != number}
        if _is_all_elsewhere(other) or not other.GetNumLocations():
            target.BreakpointDelete(other.GetID())
            continue
        _known.stand_ins[point.GetID()] = other.GetID()
        _make_alike(other, point)
        what = f"line {line} of {os.path.basename(path)} was line {number} when this code was compiled"
        text = f"[{what}: breakpoint {other.GetID()} stands in for {point.GetID()}]\n"
        target.GetDebugger().GetOutputFile().Write(text.encode())
        return


def _make_alike(other: lldb.SBBreakpoint, point: lldb.SBBreakpoint) -> None:
    other.SetEnabled(point.IsEnabled())
    other.SetOneShot(point.IsOneShot())
    other.SetCondition(point.GetCondition())
    lines = lldb.SBStringList()
    if point.GetCommandLineCommands(lines):
        other.SetCommandLineCommands(lines)


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
