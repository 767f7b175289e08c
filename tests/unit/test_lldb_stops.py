"""What lldb's stops are to the user and to a stop of ours, with an lldb that is played."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

NAMES = ("Invalid", "None", "Signal", "Breakpoint", "Trace", "Fork", "VFork", "VForkDone")
REASONS = {f"eStopReason{name}": number for number, name in enumerate(NAMES)}
CONDITIONAL, PLAIN, ONCE, INTERNAL = 1, 2, 3, 0xFFFF_FFFF_FFFF_FFFE  # breakpoints; of the last two lldb tells nothing


class Process:
    """`reasons`: of each thread, a name and the number that goes with it. `leaves_after`: how often it is still called
    stopped, None for always. `libraries`: whether the user wants to hear of them."""

    libraries = "false"

    def __init__(self, *reasons: tuple[str, int], stop: int = 7, leaves_after: int | None = None) -> None:
        self.threads = [Thread(self, REASONS[f"eStopReason{name}"], number) for name, number in reasons]
        self.stop, self.leaves_after = stop, leaves_after

    def __iter__(self) -> Iterator[Thread]:
        return iter(self.threads)

    def GetUnixSignals(self) -> Any:
        return SimpleNamespace(GetShouldStop=lambda number: number != signal.SIGCHLD)

    def GetStopID(self) -> int:
        return self.stop

    def GetState(self) -> str:
        if self.leaves_after is None:
            return "stopped"
        self.leaves_after -= 1
        return "stopped" if self.leaves_after >= 0 else "running"

    def GetTarget(self) -> Any:
        debugger = SimpleNamespace(
            GetInstanceName=lambda: "debugger_1",
            GetInternalVariableValue=lambda name, of: SimpleNamespace(GetStringAtIndex=lambda row: self.libraries),
        )
        return SimpleNamespace(
            FindBreakpointByID=Point, BreakpointDelete=lambda number: None, GetDebugger=lambda: debugger
        )


class Thread:
    def __init__(self, process: Process, reason: int, number: int) -> None:
        self.process, self.reason, self.number = process, reason, number

    def GetProcess(self) -> Process:
        return self.process

    def GetStopReason(self) -> int:
        return self.reason

    def GetStopReasonDataAtIndex(self, row: int) -> int:
        return self.number if row == 0 else 1

    def GetStopReasonDataCount(self) -> int:
        return 2


class Point:
    def __init__(self, number: int) -> None:
        self.number = number

    def __iter__(self) -> Iterator[Point]:
        return iter(())

    def IsValid(self) -> bool:
        return self.number in (CONDITIONAL, PLAIN)

    def GetCondition(self) -> str | None:
        return "x > 1" if self.number == CONDITIONAL else None

    def GetIgnoreCount(self) -> int:
        return 0

    def GetAutoContinue(self) -> bool:
        return False


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`stops` and `background`, without lldb."""
    lldb = ModuleType("lldb")
    states = ("Stopped", "Crashed", "Suspended", "Running", "Stepping")
    values = {**REASONS, **{f"eState{name}": name.lower() for name in states}}
    for name in ("Process", "Thread", "Target", "Breakpoint", "Debugger", "StructuredData"):
        values[f"SB{name}"] = object
    for name in ("Stream", "CommandInterpreter", "CommandReturnObject"):
        values[f"SB{name}"] = object
    values["SBExecutionContext"] = lambda target: target
    lldb.__dict__.update(values)
    monkeypatch.setitem(sys.modules, "lldb", lldb)
    names = ("lldb_ipbp.stops", "lldb_ipbp.background", "lldb_ipbp.stop_hook", "lldb_ipbp.states")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    stops, background, stop_hook, _ = map(import_module, names)
    yield SimpleNamespace(stops=stops, background=background, stop_hook=stop_hook)
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "reason", [("Signal", signal.SIGSEGV), ("Breakpoint", PLAIN), ("Breakpoint", ONCE), ("Trace", 0)]
)
def test_what_lldb_stops_for_is_seen_at_once(modules: Any, reason: tuple[str, int]) -> None:
    process = Process(("None", 0), reason, leaves_after=0)
    assert modules.stops.is_seen(process)


@pytest.mark.parametrize(
    "reason",
    [("Signal", signal.SIGCHLD), ("Fork", 0), ("None", 0), ("Breakpoint", CONDITIONAL), ("Breakpoint", INTERNAL)],
)
def test_of_all_else_it_is_waited_until_lldb_has_decided(modules: Any, reason: tuple[str, int]) -> None:
    assert not modules.stops.is_seen(Process(("None", 0), reason, leaves_after=3))
    modules.stops._DECISION = 0.01
    assert modules.stops.is_seen(Process(("None", 0), reason))


def test_a_stop_is_answered_alike_for_each_thread_that_has_something_to_tell(modules: Any) -> None:
    acted: list[bool] = []
    stop = modules.background._SilentStop(acted.append)
    process = Process(("Fork", 0), ("Signal", signal.SIGSTOP), ("Signal", signal.SIGCHLD))
    assert [stop.handle(process) for _ in process] == [False, False, False]
    assert acted == [True]
    assert stop.handle(Process(("Signal", signal.SIGSTOP), stop=8)) is False  # once more our signal, late
    assert stop.handle(Process(("Signal", signal.SIGSTOP), stop=9)) is True  # and the user's


def test_a_library_that_comes_with_our_signal_is_no_stop_unless_asked_for(modules: Any) -> None:
    reasons = ("Signal", signal.SIGSTOP), ("Breakpoint", INTERNAL)
    acted: list[bool] = []
    assert modules.background._SilentStop(acted.append).handle(Process(*reasons)) is False
    process = Process(*reasons)
    process.libraries = "true"
    assert modules.background._SilentStop(acted.append).handle(process) is True
    assert acted == [True, False]


def test_a_stop_that_nobody_wants_is_not_ours(modules: Any) -> None:
    acted: list[bool] = []
    stop = modules.background._SilentStop(acted.append)
    assert stop.handle(Process(("Fork", 0), ("None", 0))) is False
    assert (acted, stop.has_begun, stop.is_over.is_set()) == ([], False, False)
    assert stop.handle(Process(("Signal", signal.SIGSTOP), stop=8)) is False
    assert acted == [True]


def test_a_stop_of_the_programs_own_stays(modules: Any) -> None:
    acted: list[bool] = []
    stop = modules.background._SilentStop(acted.append)
    assert stop.handle(Process(("Breakpoint", PLAIN), ("None", 0))) is True
    assert (acted, stop.is_early) == ([False], True)


class Interpreter:
    """Of one debugger: the lines that it was given."""

    def __init__(self, debugger: Target) -> None:
        self.debugger = debugger
        self.lines: list[str] = []

    def GetDebugger(self) -> Target:
        return self.debugger

    def HandleCommand(self, line: str, context: Any, result: Any) -> None:
        self.lines.append(line)


class Result:
    def Succeeded(self) -> bool:
        return True

    def GetOutput(self) -> str:
        return "Stop hook #3 added."


class Target:
    """Also its debugger, and the context of a stop of it."""

    def __init__(self) -> None:
        self.interpreter = Interpreter(self)
        self.state = "stopped"

    def IsValid(self) -> bool:
        return True

    def GetProcess(self) -> Target:
        return self

    def GetState(self) -> str:
        return self.state

    def GetSelectedTarget(self) -> Target:
        return self

    def GetDebugger(self) -> Target:
        return self

    def GetTarget(self) -> Target:
        return self

    def GetIndexOfTarget(self, target: Target) -> int:
        return 0

    def GetCommandInterpreter(self) -> Interpreter:
        return self.interpreter


def test_a_stop_that_is_not_to_be_seen_is_none_for_the_other_listener(
    modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, target, asked = modules.stop_hook, Target(), list[str]()
    monkeypatch.setattr(hook.lldb, "SBCommandReturnObject", Result)
    goes_on = True

    def silent(context: Target) -> bool:
        asked.append("silent")
        return not goes_on

    def sources(context: Target) -> bool:
        asked.append("sources")
        return True

    hook.listen(target, hook.SOURCES, sources)
    hook.listen(target, hook.SILENT, silent)
    stop = hook.StopHook(target, None, {})
    assert stop.handle_stop(target, None) is False
    assert asked == ["silent"]
    goes_on = False
    assert stop.handle_stop(target, None) is True
    assert asked == ["silent", "silent", "sources"]


def test_there_is_one_hook_however_many_listen_and_it_sleeps_when_nobody_does(
    modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, target = modules.stop_hook, Target()
    monkeypatch.setattr(hook.lldb, "SBCommandReturnObject", Result)
    for who in (hook.SOURCES, hook.SILENT):
        hook.listen(target, who, lambda context: True)
    hook.leave(target, hook.SILENT)
    assert [line.split()[2] for line in target.interpreter.lines] == ["add", "enable"]
    hook.leave(target, hook.SOURCES)
    assert target.interpreter.lines[-1] == "target stop-hook disable 3"


def test_the_hook_is_there_before_somebody_listens_unless_a_stop_may_come(
    modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = modules.stop_hook
    monkeypatch.setattr(hook.lldb, "SBCommandReturnObject", Result)
    target = Target()
    target.state = hook.lldb.eStateRunning
    hook.prepare(target)
    assert not target.interpreter.lines
    target.state = hook.lldb.eStateStopped
    for _ in range(2):
        hook.prepare(target)
    hook.listen(target, hook.SILENT, lambda context: True)
    assert [line.split()[2] for line in target.interpreter.lines] == ["add", "disable", "enable"]
