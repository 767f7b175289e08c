"""States of a process, as lldb names them."""

from __future__ import annotations

import lldb

STOPPED = (lldb.eStateStopped, lldb.eStateCrashed, lldb.eStateSuspended)
RUNNING = (lldb.eStateRunning, lldb.eStateStepping)
