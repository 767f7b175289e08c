"""Doing something while a running program is stopped, without the user seeing a stop.

The program is sent SIGSTOP, which lldb never passes on. A stop hook of ours is asked by lldb, on its own thread,
whether the stop stands: it acts, and says no. Front ends see neither the stop nor the resumption, and a step that is
under way is not lost. Interrupting by `SBProcess.Stop` would take a tenth of a second and be seen.

Meanwhile the thread that wants it done waits and makes no call to lldb: such a call holds Python's lock.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import contextmanager
from typing import Callable, Iterator, Optional, Sequence

import lldb

from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.host.inferior import NotYet
from lldb_ipbp import stop_hook
from lldb_ipbp.states import RUNNING
from lldb_ipbp.stop_hook import tell
from lldb_ipbp.stops import breakpoints_of, is_seen, wants_stop

_PATIENCE = 5.0  # seconds in which the program must have stopped, and gone on afterwards
_POLL, _LOOK = 0.001, 0.02
_SETTLING = 0.2  # seconds from a stop of the program's own to when lldb asks its hooks

_waiting: list[_SilentStop] = []


class AlreadyStopped(Exception):
    """The program has stopped by itself, before anybody listened: nothing was done."""


def run_in_silent_stop(
    debugger: lldb.SBDebugger,
    process: lldb.SBProcess,
    action: Callable[[bool], None],
) -> float:
    """Run `action` in a stop that nobody sees; the milliseconds of the stop. `action` learns whether it is ours alone.

    0.0 when something of the program's own stopped it at the same moment: then it stays stopped.
    Errors: `AlreadyStopped`, `inferior-busy`, `inferior-unstoppable`, and what `action` raises.
    """
    if _waiting and not (_waiting[0].is_over.is_set() or _waiting[0].is_given_up):
        raise IpbpError("inferior-busy", "the program is being patched already", "Wait until that is done.")
    _waiting.clear()
    signals = process.GetUnixSignals()
    if not signals.GetShouldStop(signal.SIGSTOP) or not signals.GetShouldSuppress(signal.SIGSTOP):
        raise _unstoppable("lldb was told not to stop at SIGSTOP, or to pass it on (`process handle`)")
    stop = _SilentStop(action)
    _waiting.append(stop)
    with stop_hooks_off(debugger):  # one that wants to stay stopped would have its way
        _run(stop, process)
    if stop.error is not None:
        raise stop.error
    return stop.milliseconds


def _run(stop: _SilentStop, process: lldb.SBProcess) -> None:
    pid = process.GetProcessID()
    _read_symbols(process.GetTarget(), pid)
    stop_hook.listen(process.GetTarget(), stop_hook.SILENT, _stays_stopped)
    stop.requested = time.perf_counter()
    if process.GetState() in RUNNING or not is_seen(process):
        _ask_to_stop(stop, pid)
    else:
        _take_part(stop, process)
    if stop.resumes:
        _wait_until_resumed(process, stop)
    if not stop.is_early:
        _leave(process)


def _leave(process: lldb.SBProcess) -> None:
    stop_hook.leave(process.GetTarget(), stop_hook.SILENT)
    _waiting.clear()


def _ask_to_stop(stop: _SilentStop, pid: int) -> None:
    """Until it was stopped and the action is done."""
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    while not stop.is_over.wait(_LOOK) and not stop.has_begun and time.monotonic() < began + _PATIENCE:
        continue
    if not stop.has_begun:
        # The hook stays, so that the stop is not seen when it comes after all.
        stop.is_given_up = True
        raise _unstoppable("the program has not stopped in time")
    # A function that is called in the program has a limit of its own. Each look at the clock costs the other thread
    # Python's lock.
    while not stop.is_over.wait(_POLL if stop.due else _LOOK):
        if stop.due and time.monotonic() > stop.due:
            stop.due = time.monotonic() + _PATIENCE
            os.kill(pid, signal.SIGSTOP)


def _take_part(stop: _SilentStop, process: lldb.SBProcess) -> None:
    """In a stop that came before our signal was sent: lldb may be on its way to the hook, or have passed it."""
    if not stop.is_over.wait(_SETTLING) and not stop.has_begun:
        stop.is_given_up = True
        _leave(process)
        raise AlreadyStopped
    stop.is_over.wait()
    stop.is_early = False  # no signal of ours is to come


class _SilentStop:
    """One stop, from the signal to the resumption."""

    def __init__(self, action: Callable[[bool], None]) -> None:
        self._action = action
        self.requested = 0.0
        self.milliseconds = 0.0
        self.error: Optional[BaseException] = None
        self.is_over = threading.Event()
        self.has_begun = False
        self.is_acting = False
        self.is_given_up = False
        self.has_come_late = False
        self.is_early = False  # something else stopped the program; our signal is still to come
        self.resumes = False
        self.stays_at = 0  # the stop after ours, by lldb's count, that the user shall see
        self.due = 0.0  # when the program is to be stopped once more (`NotYet`), 0 for never
        self._places: list[int] = []  # breakpoints where it is waited for
        self._answered, self._answer = -1, False  # stop by lldb's count, and what was said of it

    def handle(self, process: lldb.SBProcess) -> bool:
        """Whether the program shall stay stopped."""
        if self.is_acting:  # a stop of our own steps
            return True
        # lldb asks once for each thread that has something to tell of the stop.
        if process.GetStopID() != self._answered:
            self._answer = self._decide(process)
            self._answered = process.GetStopID()  # it may have stepped
        return self._answer

    def _decide(self, process: lldb.SBProcess) -> bool:
        is_ours, has_other = _reasons(process, self._places)
        if self.due:  # it was waited for: the stop begins now
            self.requested = time.perf_counter()
        if self.is_given_up or self.is_over.is_set():
            # Our signal, late. Once: the next one like it is the user's interrupt.
            is_late = is_ours and not has_other and not self.has_come_late
            self.has_come_late |= is_late
            if not is_late:
                self.stays_at = process.GetStopID()
            return not is_late
        if not is_ours and not has_other:  # nobody wants this stop; our signal is still to come
            return False
        self.has_begun = self.is_acting = True
        self.is_early = not is_ours
        self.resumes = is_ours and not has_other
        self._expect_nothing(process)
        try:
            self._action(self.resumes)
        except BaseException as error:  # it is the waiting thread's
            if isinstance(error, NotYet) and self.resumes:
                self.is_acting = False
                self._expect(process, error)
                return False
            self.error = error
        if self.resumes:
            self.milliseconds = 1000 * (time.perf_counter() - self.requested)
        self.is_acting = False
        self.is_over.set()
        return not self.resumes

    def _expect(self, process: lldb.SBProcess, again: NotYet) -> None:
        target = process.GetTarget()
        self._places = [target.BreakpointCreateByAddress(address).GetID() for address in again.addresses]
        self.due = time.monotonic() + again.seconds

    def _expect_nothing(self, process: lldb.SBProcess) -> None:
        self.due = 0.0
        while self._places:
            process.GetTarget().BreakpointDelete(self._places.pop())


def _stays_stopped(context: lldb.SBExecutionContext) -> bool:
    return _waiting[0].handle(context.GetProcess()) if _waiting else True


@contextmanager
def stop_hooks_off(debugger: lldb.SBDebugger) -> Iterator[None]:
    """No stop hook runs, neither ours nor the user's: a step of ours is not a stop that anybody wants to hear of."""
    interpreter = debugger.GetCommandInterpreter()
    listed = tell(interpreter, "target stop-hook list") or ""
    numbers = re.findall(r"^Hook: (\d+)\s+State: enabled", listed, re.MULTILINE)
    for number in numbers:
        tell(interpreter, f"target stop-hook disable {number}")
    try:
        yield
    finally:
        for number in numbers:
            tell(interpreter, f"target stop-hook enable {number}")


def _read_symbols(target: lldb.SBTarget, thread: int) -> None:
    """lldb reads symbols and debug information when it is first asked where a stopped thread is, and for the one that
    gets our signal it always asks. While that thread sleeps it is known beforehand."""
    where = procfs.system_call(thread, thread)
    if where is not None and where.pc:
        everything = lldb.eSymbolContextEverything
        target.ResolveSymbolContextForAddress(target.ResolveLoadAddress(where.pc), everything)


def _reasons(process: lldb.SBProcess, places: Sequence[int]) -> tuple[bool, bool]:
    # Whether our signal or one of our breakpoints stopped it, and whether anything else did that lldb stops for.
    is_ours = has_other = False
    for thread in filter(wants_stop, process):
        reason = thread.GetStopReason()
        is_signal = reason == lldb.eStopReasonSignal and thread.GetStopReasonDataAtIndex(0) == signal.SIGSTOP
        if is_signal or (reason == lldb.eStopReasonBreakpoint and _is_at(thread, places)):
            is_ours = True
        else:
            has_other = True
    return is_ours, has_other


def _is_at(thread: lldb.SBThread, places: Sequence[int]) -> bool:
    numbers = [number for number, _ in breakpoints_of(thread)]
    return bool(numbers) and all(number in places for number in numbers)


def _wait_until_resumed(process: lldb.SBProcess, stop: _SilentStop) -> None:
    # lldb goes on calling the program stopped for a moment after it has resumed it. It may also have stopped again: by
    # what came together with our signal, and our hook goes on from that; or to stay.
    deadline = time.perf_counter() + _PATIENCE
    while process.GetState() == lldb.eStateStopped and time.perf_counter() < deadline:
        if stop.stays_at == process.GetStopID():
            break
        time.sleep(_POLL)


def _unstoppable(fact: str) -> IpbpError:
    return IpbpError("inferior-unstoppable", fact, "Stop the program yourself with `process interrupt`, and try again.")
