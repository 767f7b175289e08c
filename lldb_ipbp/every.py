"""All processes of this lldb, one in each target."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import lldb

from ipbp.host.every import Member
from lldb_ipbp.inferior import LldbInferior
from lldb_ipbp.remote import is_traced_from_here
from lldb_ipbp.states import RUNNING, STOPPED

_ALIVE = (*STOPPED, *RUNNING)


def members(debugger: lldb.SBDebugger) -> list[Member]:
    """Those of the targets that have a process, in the order of the targets."""
    targets = [debugger.GetTargetAtIndex(row) for row in range(debugger.GetNumTargets())]
    return [
        _member(debugger, row, target) for row, target in enumerate(targets) if target.GetProcess().GetState() in _ALIVE
    ]


def _member(debugger: lldb.SBDebugger, row: int, target: lldb.SBTarget) -> Member:
    @contextmanager
    def selected() -> Iterator[LldbInferior]:
        before = debugger.GetSelectedTarget()
        debugger.SetSelectedTarget(target)
        try:
            yield LldbInferior(debugger, target)
        finally:
            debugger.SetSelectedTarget(before)

    process = target.GetProcess()
    is_local = is_traced_from_here(int(process.GetProcessID()))
    return Member(f"target #{row}", int(process.GetProcessID()), process.GetState() in STOPPED, is_local, selected)
