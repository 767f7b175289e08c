"""lldb as a thread of ours sees it.

lldb may be asked from any thread, but a command of the user's fails when it comes while a thread of ours looks at the
stopped program ("Resume request failed - process still running": whoever looks holds a lock against that). While the
program runs there is no such lock, our stop is silent (`background`), and the user's commands wait for the program. So
everything waits until it runs.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, TypeVar

import lldb

from ipbp.errors import IpbpError
from ipbp.host import tasks
from ipbp.host.render import shown
from lldb_ipbp.inferior import LldbInferior
from lldb_ipbp.states import RUNNING, STOPPED

T = TypeVar("T")

_POLL = 0.02  # seconds between two looks whether the program runs


class LldbDebugger:
    """It implements `ipbp.host.watch.Debugger`, where each method is explained."""

    def __init__(self, debugger: lldb.SBDebugger, is_terminal: bool) -> None:
        self._debugger = debugger
        self._file = debugger.GetOutputFile()
        self.is_terminal = is_terminal
        self._is_over: Callable[[], bool] = lambda: False

    def inferior(self, report: Callable[[IpbpError], None]) -> LldbInferior:
        return LldbInferior(self._debugger, self._debugger.GetSelectedTarget(), self._until_running)

    def do(self, action: Callable[[], T], is_over: Callable[[], bool]) -> T:
        self._is_over = is_over
        while not self.is_ready():
            self._wait()
        return action()

    def _until_running(self) -> None:
        # One that has ended is not waited for: `LldbInferior` says so.
        while self._process().GetState() in STOPPED:
            self._wait()

    def _wait(self) -> None:
        if self._is_over():
            raise IpbpError("interrupted", "interrupted", "`hotpatch status` says what is applied.")
        time.sleep(_POLL)

    def is_ready(self) -> bool:
        return self._process().GetState() in RUNNING

    def show(self, text: str, is_over: Callable[[], bool]) -> None:
        if self.is_terminal and self._has_prompt():
            text = f"\n{text}{self._debugger.GetPrompt()}"
        self._file.Write(shown(text).encode())
        self._file.Flush()

    def start(self, thread: threading.Thread) -> None:
        thread.start()

    def _process(self) -> lldb.SBProcess:
        return self._debugger.GetSelectedTarget().GetProcess()

    def _has_prompt(self) -> bool:
        # A program that lldb has launched takes the terminal while it runs; one that it was attached to does not.
        pid = int(self._process().GetProcessID())
        return not self.is_ready() or tasks.is_attached(pid)
