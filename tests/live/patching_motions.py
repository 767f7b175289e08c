"""Runs in gdb or lldb: goes through the motions of a patch, without one: stop, map memory, call, let it run again.

In gdb it is sourced, in lldb imported. `motions_stopped()` works on the stopped program; `motions_running(n)` makes n
silent stops of a running one, and prints `motions done: 3 times, 3 silent`. `motions_meanwhile(n)` does so in lldb in a
thread of its own, as soon as the program runs; `motions_at(name)` makes one right after a breakpoint was set. lldb's
`lldb.target`, and where `print` leads to, are not there at a stop of which a hook is just told (19): so its debugger is
kept, and written to. Python 3.9, standard library only.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

NEAR = 0x10000000  # nothing is there, in reach of nobody: what matters is the system call

_lldb: list[Any] = []  # its debugger


def __lldb_init_module(debugger: Any, session: Any) -> None:
    _lldb[:] = [debugger]


def say(text: str) -> None:
    if not _lldb:
        print(text, flush=True)
        return
    file = _lldb[0].GetOutputFile()
    file.Write(f"{text}\n".encode())
    file.Flush()


def inferior() -> Any:
    if "gdb" in sys.modules:
        from gdb_ipbp.inferior import GdbInferior

        return GdbInferior(lambda error: print("late:", error))
    from lldb_ipbp.inferior import LldbInferior

    return LldbInferior(_lldb[0], _lldb[0].GetSelectedTarget())


def motions_stopped() -> None:
    from ipbp.host import inject

    found = inferior()
    inject.restartable(found)
    for protection in ("rx", "rw"):
        inject.allocate(found, NEAR, 8192, protection)
        inject.release(found, NEAR, 8192)
    say("motions done")


def motions_running(count: int, found: Any = None) -> None:
    from ipbp.host import inject

    found = found or inferior()
    times = []

    def act() -> None:
        assert found.describe().stopped
        inject.allocate(found, NEAR, 4096, "rx")
        found.write(NEAR, b"\xc3")
        inject.release(found, NEAR, 4096)

    def then(milliseconds: float) -> None:
        times.append(milliseconds)
        if "gdb" in sys.modules and len(times) < count:
            found.while_stopped(act, then)
        elif len(times) == count:
            say(f"motions done: {len(times)} times, {sum(time > 0 for time in times)} silent")

    found.while_stopped(act, then)
    while "gdb" not in sys.modules and len(times) < count:
        found.while_stopped(act, then)


def motions_at(function: str) -> None:
    _lldb[0].GetSelectedTarget().BreakpointCreateByName(function)
    motions_running(1)


def motions_meanwhile(count: int) -> None:
    import lldb

    found, process = inferior(), _lldb[0].GetSelectedTarget().GetProcess()

    def work() -> None:
        while process.GetState() != lldb.eStateRunning:
            time.sleep(0.01)
        try:
            motions_running(count, found)
        except Exception as error:
            say(f"motions failed: {error!r}")

    threading.Thread(target=work, daemon=True).start()
