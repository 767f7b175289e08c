"""gdb as a thread of ours sees it: everything is done on gdb's own thread, between two of its events."""

from __future__ import annotations

import re
import threading
from typing import Callable, TypeVar

import gdb

from gdb_ipbp.inferior import GdbInferior
from gdb_ipbp.posts import Posts
from gdb_ipbp.prompt import Prompt, show
from gdb_ipbp.settings import start, without_interrupts
from ipbp.errors import IpbpError

T = TypeVar("T")

_GLANCE = 0.2  # seconds between two looks whether anybody still waits
# gdb's own breakpoints of commands that would be lost if the program stopped for anything else.
_MIDWAY = re.compile(
    r"^\S+\s+(?:(?:high-priority )?step resume|finish|until|call dummy|(?:longjmp|exception)(?: resume)?)"
    r"\s+(?:keep|del|dis|dstp)\s",
    re.MULTILINE,
)


class GdbDebugger:
    """It implements `ipbp.host.watch.Debugger`, where each method is explained."""

    def __init__(self, is_terminal: bool) -> None:
        self.is_terminal = is_terminal
        Prompt.follow()
        Posts.follow()

    def inferior(self, report: Callable[[IpbpError], None]) -> GdbInferior:
        return GdbInferior(report)

    def do(self, action: Callable[[], T], is_over: Callable[[], bool]) -> T:
        if threading.current_thread() is threading.main_thread():
            return action()
        results: list[T] = []
        failures: list[BaseException] = []
        is_done = threading.Event()

        def act() -> None:
            try:
                with without_interrupts():  # Ctrl-C is for the program, or for the command that waits for it
                    results.append(action())
            except BaseException as error:  # it is the waiting thread's
                failures.append(error)
            is_done.set()

        Posts.post(act)
        while not is_done.wait(_GLANCE):
            if is_over() or Posts.is_ending:
                raise IpbpError("interrupted", "interrupted", "`hotpatch status` says what is applied.")
        if failures:
            raise failures[0]
        return results[0]

    def is_ready(self) -> bool:
        # Only a program that runs can be in the middle of something. In the background gdb keeps such commands, too.
        if not any(thread.is_running() for thread in gdb.selected_inferior().threads()):
            return True
        return _MIDWAY.search(gdb.execute("maintenance info breakpoints", to_string=True)) is None

    def show(self, text: str, is_over: Callable[[], bool]) -> None:
        self.do(lambda: show(text), is_over)

    def start(self, thread: threading.Thread) -> None:
        start(thread)
