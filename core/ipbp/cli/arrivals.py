"""Waiting for programs to be started: the kernel tells of every file that is opened to be executed (inotify(7)).

What is watched is the file that a process runs, by /proc/PID/exe, so also one that was replaced under its name. The
event comes before the new program is there (execve(2)), and reading the file causes one, too; so whoever is woken looks
a few times, and finds nobody new now and then.
"""

from __future__ import annotations

import ctypes
import os
import select
import time
from collections.abc import Collection, Iterable
from contextlib import ExitStack

from ipbp.errors import IpbpError
from ipbp.host import procfs

_IN_OPEN, _IN_NONBLOCK, _IN_CLOEXEC = 0x20, 0o4000, 0o2000000  # inotify.h
_EVENTS = 1 << 16  # bytes
_STARTING, _TICK = 0.3, 0.005  # seconds that a program may take to load its libraries, and between two looks at it
LOOKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between two looks after an event: an exec takes its time on a busy machine."""


def program_of(pid: int) -> str:
    """The file that a process runs, whatever lies under its name now."""
    return f"/proc/{pid}/exe"


def wait_until_started(pid: int) -> None:
    """Until the program waits for something for the first time, which the dynamic loader has no reason to do."""
    deadline = time.monotonic() + _STARTING
    while time.monotonic() < deadline and procfs.state(pid, pid) == "R":
        time.sleep(_TICK)


class Arrivals:
    """Woken when one of these programs, `files`, is started. `with` closes it."""

    def __init__(self, files: Iterable[str], lives: Collection[int]) -> None:
        """`lives`: there is nobody to wait for when all of these have ended; none for whoever waits for ever. Errors:
        `follow-failed`."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._stack = ExitStack()
        self._file = self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._file < 0:
            raise self._failed("watch programs")
        self._stack.callback(os.close, self._file)
        self._ends: set[int] = set()
        self._waits_for_ever = not lives
        for pid in lives:
            try:
                self._ends.add(os.pidfd_open(pid))
            except OSError:  # it has ended
                continue
        for end in self._ends:
            self._stack.callback(os.close, end)
        self.watch(files)

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(self, *unused: object) -> None:
        self._stack.close()

    def watch(self, files: Iterable[str]) -> None:
        """These, too. A file that is watched already is watched once."""
        for file in files:
            watch = self._libc.inotify_add_watch(self._file, os.fsencode(file), _IN_OPEN)
            if watch < 0 and os.path.exists(file):  # a process may have ended
                raise self._failed(f"watch {file}")

    def wait(self) -> bool:
        """Whether a program may have been started; else all that are waited for have ended."""
        while self._ends or self._waits_for_ever:
            ready, _, _ = select.select([self._file, *self._ends], [], [])
            self._ends.difference_update(ready)
            if self._file in ready:
                os.read(self._file, _EVENTS)
                return True
        return False

    def _failed(self, what: str) -> IpbpError:
        reason = os.strerror(ctypes.get_errno())
        return IpbpError("follow-failed", f"the kernel does not let us {what}: {reason}", "Try without --follow.")
