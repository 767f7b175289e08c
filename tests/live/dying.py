"""Loaded into a debugger by tests: somebody is killed before the n-th thing that ipbp does to the program.

What is counted is what the host layer asks of the inferior that changes something, and each line of the journal: the
classes are wrapped from outside, nothing in ipbp knows of it. Who is to be killed when, a file says: lldb is not to be
told more while the program runs.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from pathlib import Path
from typing import Any

CHANGING = ("write", "write_all", "set_registers", "set_vectors", "step", "call", "disarm", "rearm", "forget_signal")


class _Counter:
    """`folder`: the file `at` in it holds the number of the operation before which somebody is killed, from 1, 0 for
    never, and the process, 0 for the debugger itself; it is counted anew when that changes. The file `log` gets a line
    for each operation."""

    folder = Path()
    wanted = ""
    count = 0


def arm(debugger: str, folder: str) -> None:
    """From now on it is counted."""
    from ipbp.host.journal import Journal

    _Counter.folder = Path(folder)
    module, name = ("gdb_ipbp", "GdbInferior") if debugger == "gdb" else ("lldb_ipbp", "LldbInferior")
    inferior = getattr(sys.modules[f"{module}.inferior"], name)
    for name in CHANGING:
        _wrap(inferior, name)
    _wrap(Journal, "_append")


def _wrap(kind: Any, name: str) -> None:
    original = getattr(kind, name)

    @functools.wraps(original)
    def wrapped(self: Any, *arguments: Any) -> Any:
        _before(name)
        return original(self, *arguments)

    setattr(kind, name, wrapped)


def _before(name: str) -> None:
    wanted = (_Counter.folder / "at").read_text()
    if wanted != _Counter.wanted:
        _Counter.wanted, _Counter.count = wanted, 0
    _Counter.count += 1
    with (_Counter.folder / "log").open("a") as file:
        file.write(name + "\n")
    at, victim = map(int, wanted.split())
    if _Counter.count == at:
        os.kill(victim or os.getpid(), signal.SIGKILL)
