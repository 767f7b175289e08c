"""Actions of our threads on gdb's own thread, and what becomes of them when gdb ends.

gdb (13) crashes when it ends with something posted that it has not come to: what it has to throw away is Python's, and
Python has ended by then. So nothing is posted any more once gdb is about to end; and when something is left, gdb's
process is ended right after Python's part of its cleaning up, which is the last (the program is let go and the
history is saved before).
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from typing import Any, Callable

import gdb


class Posts:
    """`gdb.post_event`, with an eye on gdb's end. `follow` it on gdb's thread first."""

    is_ending = False
    _lock = threading.Lock()
    _waiting = 0
    _status = 0
    _is_followed = False

    @classmethod
    def follow(cls) -> None:
        if not cls._is_followed:
            gdb.events.gdb_exiting.connect(cls._on_exiting)
            atexit.register(cls._end)
            cls._is_followed = True

    @classmethod
    def post(cls, action: Callable[[], None]) -> None:
        """Have this done by gdb's event loop, unless gdb is about to end."""

        def act() -> None:
            with cls._lock:
                cls._waiting -= 1
            action()

        with cls._lock:
            if not cls.is_ending:
                cls._waiting += 1
                gdb.post_event(act)

    @classmethod
    def _on_exiting(cls, event: Any) -> None:
        with cls._lock:
            cls.is_ending = True
            cls._status = getattr(event, "exit_code", 0)

    @classmethod
    def _end(cls) -> None:
        if cls._waiting:
            ctypes.CDLL(None).fflush(None)
            os._exit(cls._status)
