"""States of a process, as lldb names them."""

from __future__ import annotations

import lldb

STOPPED = (lldb.eStateStopped, lldb.eStateCrashed, lldb.eStateSuspended)
RUNNING = (lldb.eStateRunning, lldb.eStateStepping)


def stands_still(process: lldb.SBProcess) -> bool:
    """For a moment after it was told to let a program go on, lldb still calls it stopped. Its lock is not so slow, and
    is taken for a write of nothing, too, of which lldb's server does not hear: over a slow link that matters."""
    if process.GetState() not in STOPPED:
        return False
    error = lldb.SBError()
    process.WriteMemory(0, b"", error)
    return "is running" not in (error.GetCString() or "")
