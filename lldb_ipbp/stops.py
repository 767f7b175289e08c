"""Which stops of a program its user sees.

lldb tells of many more: of each fork(2), of signals that it does not stop for, of breakpoints whose condition turns out
to be false. It calls the program stopped until it has decided that nobody wants that, and lets it go on then.
"""

from __future__ import annotations

import time

import lldb

_DECISION = 0.5  # seconds in which lldb has let a program go on, if it does
_POLL = 0.001
_OF_LIBRARIES = "target.process.stop-on-sharedlibrary-events"

# Of a fork(2) lldb takes note, and lets the program go on by itself.
_FORKS = (lldb.eStopReasonFork, lldb.eStopReasonVFork, lldb.eStopReasonVForkDone)
_NOTHING = (lldb.eStopReasonNone, lldb.eStopReasonInvalid)


def is_seen(process: lldb.SBProcess) -> bool:
    """Whether the program, which lldb calls stopped, stays so for the user. Waits until that is decided."""
    if any(wants_stop(thread) and not _is_conditional(thread) for thread in process):
        return True
    stop, deadline = process.GetStopID(), time.monotonic() + _DECISION
    while time.monotonic() < deadline:
        if process.GetState() != lldb.eStateStopped or process.GetStopID() != stop:
            return False
        time.sleep(_POLL)
    return True


def wants_stop(thread: lldb.SBThread) -> bool:
    """Whether the thread was stopped by something that lldb stops for."""
    reason = thread.GetStopReason()
    if reason in _FORKS or reason in _NOTHING:
        return False
    if reason == lldb.eStopReasonBreakpoint:
        return not all(is_internal(number) for number, _ in breakpoints_of(thread)) or _stops_for_libraries(thread)
    if reason != lldb.eStopReasonSignal:
        return True
    return bool(thread.GetProcess().GetUnixSignals().GetShouldStop(thread.GetStopReasonDataAtIndex(0)))


def _is_conditional(thread: lldb.SBThread) -> bool:
    # Whether it is at breakpoints each of which may let it go on.
    if thread.GetStopReason() != lldb.eStopReasonBreakpoint:
        return False
    target = thread.GetProcess().GetTarget()
    return all(_may_go_on(target, number) for number, _ in breakpoints_of(thread))


def breakpoints_of(thread: lldb.SBThread) -> list[tuple[int, int]]:
    """Of a thread that stopped at some: the numbers of each one and of its location."""
    data = [int(thread.GetStopReasonDataAtIndex(row)) for row in range(thread.GetStopReasonDataCount())]
    return list(zip(data[::2], data[1::2]))


def _stops_for_libraries(thread: lldb.SBThread) -> bool:
    # At a breakpoint of its own lldb learns of libraries, and goes on unless the user wants to hear of them.
    debugger = thread.GetProcess().GetTarget().GetDebugger()
    said = debugger.GetInternalVariableValue(_OF_LIBRARIES, debugger.GetInstanceName())
    return bool(said.GetStringAtIndex(0) == "true")


def is_internal(number: int) -> bool:
    """Whether a stop's data mean a breakpoint of lldb's own: those have negative numbers, and no SBBreakpoint."""
    return bool(number >> 31)


def _may_go_on(target: lldb.SBTarget, number: int) -> bool:
    if is_internal(number):
        return True
    point = target.FindBreakpointByID(number)
    if not point.IsValid():  # it was there for one time
        return False
    if point.GetCondition() or point.GetIgnoreCount() or point.GetAutoContinue():
        return True
    return any(place.GetCondition() or place.GetIgnoreCount() or place.GetAutoContinue() for place in point)
