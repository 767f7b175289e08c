"""The one stop hook that we have in each target, whoever of us wants to hear of stops.

Where there are several hooks lldb shows the name of each one that it asks, at every stop, also at one that nobody is to
see; and a program stays stopped when any of them says so. So ours is one. Whoever listens is asked in turn, until one
lets the program go on.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import lldb

from ipbp.errors import IpbpError
from ipbp.host.garbage import without_collection
from lldb_ipbp.states import RUNNING

Listener = Callable[[lldb.SBExecutionContext], bool]

SILENT, SOURCES = 0, 1
"""Who listens, in the order in which they are asked: a stop that nobody is to see is none for the others."""

_listeners: dict[int, dict[int, Listener]] = {}
"""By the index of the target in the debugger. A listener says whether the program stays stopped."""

_hooks: dict[int, int] = {}
"""Index of a target -> number of our hook there. It stays, disabled while nobody listens: lldb may be going through its
hooks on its other thread when we would delete it."""


def listen(target: lldb.SBTarget, who: int, listener: Listener) -> None:
    """From now on it is asked at each stop of the target. Errors: `inferior-unstoppable` when lldb takes no hook."""
    index = target.GetDebugger().GetIndexOfTarget(target)
    _listeners[index] = {**_listeners.get(index, {}), who: listener}
    if not _enable(target, index) and not _add(target, index):
        fact = "lldb does not accept a stop hook"
        raise IpbpError("inferior-unstoppable", fact, "Stop the program with `process interrupt`, and try again.")


def prepare(target: lldb.SBTarget) -> None:
    """Have our hook in this target before somebody listens, while no stop can come.

    lldb (19) lists a hook before it has made the object of our class, and a stop in between crashes it.
    """
    index = target.GetDebugger().GetIndexOfTarget(target)
    if target.IsValid() and target.GetProcess().GetState() not in RUNNING and index not in _hooks:
        _add(target, index)
        _disable(target, index)


def _add(target: lldb.SBTarget, index: int) -> bool:
    said = tell(target.GetDebugger().GetCommandInterpreter(), f"target stop-hook add -P {__name__}.StopHook")
    if said is not None:  # "Stop hook #1 added."
        _hooks[index] = int(said.partition("#")[2].split()[0])
    return said is not None


def _enable(target: lldb.SBTarget, index: int) -> bool:
    interpreter = target.GetDebugger().GetCommandInterpreter()
    return index in _hooks and tell(interpreter, f"target stop-hook enable {_hooks[index]}") is not None


def _disable(target: lldb.SBTarget, index: int) -> None:
    if index in _hooks:
        tell(target.GetDebugger().GetCommandInterpreter(), f"target stop-hook disable {_hooks[index]}")


def leave(target: lldb.SBTarget, who: int) -> None:
    """It is not asked any more."""
    index = target.GetDebugger().GetIndexOfTarget(target)
    _listeners[index] = {key: other for key, other in _listeners.get(index, {}).items() if key != who}
    if not _listeners[index]:
        _disable(target, index)


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
        with without_collection():
            listeners = _listeners.get(target.GetDebugger().GetIndexOfTarget(target), {})
            return all(listeners[who](context) for who in sorted(listeners))
