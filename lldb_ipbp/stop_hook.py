"""The one stop hook that we have in each target, whoever of us wants to hear of stops.

Where there are several hooks lldb shows the name of each one that it asks, at every stop, also at one that nobody is to
see; and a program stays stopped when any of them says so. So ours is one. Whoever listens is asked in turn, until one
lets the program go on.

lldb lists a hook first and makes the object of its class afterwards; up to version 19 it crashes when the program stops
in between, and asks it. So there the thread that asks the hooks adds ours itself: what is added first is a hook of
commands, in which nothing is made. lldb comes to the one that it adds in the same round.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Optional

import lldb

from ipbp.errors import IpbpError
from ipbp.host.garbage import without_collection

Listener = Callable[[lldb.SBExecutionContext], bool]

SILENT, SOURCES = 0, 1
"""Who listens, in the order in which they are asked: a stop that nobody is to see is none for the others."""

_listeners: dict[int, dict[int, Listener]] = {}
"""By the index of the target in the debugger. A listener says whether the program stays stopped."""

_hooks: dict[int, int] = {}
"""Index of a target -> number of our hook there. It stays, disabled while nobody listens: lldb may be going through its
hooks on its other thread when we would delete it."""

_heralds: dict[int, tuple[lldb.SBTarget, int]] = {}
"""Index of a target -> it, and the number of a hook there that adds ours. It is deleted by ours."""

_WHOLE = 20
"""First version of lldb that asks no hook which is still being made (llvm-project, pull request 109498)."""


def listen(target: lldb.SBTarget, who: int, listener: Listener) -> None:
    """From now on it is asked at each stop of the target. Errors: `inferior-unstoppable` when lldb takes no hook."""
    index = target.GetDebugger().GetIndexOfTarget(target)
    _listeners[index] = {**_listeners.get(index, {}), who: listener}
    interpreter = target.GetDebugger().GetCommandInterpreter()
    number = _hooks.get(index)
    if number is not None and tell(interpreter, f"target stop-hook enable {number}") is not None:
        return
    if _version() >= _WHOLE:
        _hooks[index] = _add(interpreter, f"-P {__name__}.StopHook")
        return
    # With -G it leaves to the others whether the program stays stopped.
    _hooks[index] = _add(interpreter, f'-G true -o "script import {__name__}; {__name__}.arrive({index})"')
    _heralds[index] = target, _hooks[index]


def arrive(index: int) -> None:
    """Called by lldb while it asks the hooks of a target, once for each thread that has something to tell."""
    target, herald = _heralds[index]
    if _hooks[index] != herald:
        return
    debugger = target.GetDebugger()
    interpreter, selected = debugger.GetCommandInterpreter(), debugger.GetSelectedTarget()
    debugger.SetSelectedTarget(target)  # to which commands apply
    try:
        _hooks[index] = _add(interpreter, f"-P {__name__}.StopHook")
        tell(interpreter, f"target stop-hook disable {herald}")
    finally:
        debugger.SetSelectedTarget(selected)


def _add(interpreter: lldb.SBCommandInterpreter, what: str) -> int:
    said = tell(interpreter, f"target stop-hook add {what}")  # "Stop hook #1 added."
    if said is None:
        fact = "lldb does not accept a stop hook"
        raise IpbpError("inferior-unstoppable", fact, "Stop the program with `process interrupt`, and try again.")
    return int(said.partition("#")[2].split()[0])


def _version() -> int:
    found = re.search(r"version (\d+)", lldb.SBDebugger.GetVersionString())
    return int(found[1]) if found else 0


def leave(target: lldb.SBTarget, who: int) -> None:
    """It is not asked any more."""
    index = target.GetDebugger().GetIndexOfTarget(target)
    _listeners[index] = {key: other for key, other in _listeners.get(index, {}).items() if key != who}
    if index in _hooks and not _listeners[index]:
        tell(target.GetDebugger().GetCommandInterpreter(), f"target stop-hook disable {_hooks[index]}")


def tell(interpreter: lldb.SBCommandInterpreter, line: str) -> Optional[str]:
    """What a command would print; None when it failed."""
    result = lldb.SBCommandReturnObject()
    # Of the target alone: lldb would look for the selected frame first, and crash when the program stops just then.
    context = lldb.SBExecutionContext(interpreter.GetDebugger().GetSelectedTarget())
    interpreter.HandleCommand(line, context, result)
    return f"{result.GetOutput() or ''} " if result.Succeeded() else None


class StopHook:
    """As `target stop-hook add -P` wants it."""

    def __init__(self, target: lldb.SBTarget, extra: lldb.SBStructuredData, session: dict[str, Any]) -> None:
        pass

    def handle_stop(self, context: lldb.SBExecutionContext, stream: lldb.SBStream) -> bool:
        target = context.GetTarget()
        index = target.GetDebugger().GetIndexOfTarget(target)
        with without_collection():
            if index in _heralds:  # lldb has passed it in this round
                tell(target.GetDebugger().GetCommandInterpreter(), f"target stop-hook delete {_heralds.pop(index)[1]}")
            listeners = _listeners.get(index, {})
            return all(listeners[who](context) for who in sorted(listeners))
