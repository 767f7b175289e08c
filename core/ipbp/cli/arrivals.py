"""Waiting for programs to be started: the kernel tells of every file that is opened to be executed (inotify(7)).

What is watched is the file that a process runs, by /proc/PID/exe, so also one that was replaced under its name. The
event comes before the new program is there (execve(2)), and reading the file causes one, too; so whoever is woken looks
a few times, and finds nobody new now and then. What is found has begun already: `ipbp.cli.starts` is better where the
kernel allows it.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from ipbp.errors import IpbpError
from ipbp.host import procfs

_IN_OPEN, _IN_NONBLOCK, _IN_CLOEXEC = 0x20, 0o4000, 0o2000000  # inotify.h
_EVENTS = 1 << 16  # bytes
_STARTING, _TICK = 0.3, 0.005  # seconds that a program may take to load its libraries, and between two looks at it
_LOOKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between two looks after an event: an exec takes its time on a busy machine."""


def program_of(pid: int) -> str:
    """The file that a process runs, whatever lies under its name now."""
    return f"/proc/{pid}/exe"


def looks(again: Callable[[], Sequence[int]]) -> Iterator[Sequence[int]]:
    """The processes that are there by then, a few times."""
    for seconds in _LOOKS:
        time.sleep(seconds)
        yield again()


def wait_until_started(pid: int) -> None:
    """Until the program waits for something for the first time, which the dynamic loader has no reason to do."""
    deadline = time.monotonic() + _STARTING
    while time.monotonic() < deadline and procfs.state(pid, pid) == "R":
        time.sleep(_TICK)


class Arrivals:
    """Woken when one of the programs that are watched is started. `with` closes it. `file`: can be read from then.
    `note`: what the user should know of it."""

    def __init__(self, note: str = "") -> None:
        """Errors: `follow-failed`."""
        self.note = note
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.file = self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self.file < 0:
            raise self._failed("watch programs")

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(self, *unused: object) -> None:
        os.close(self.file)

    def watch(self, files: Iterable[str]) -> None:
        """These, too. A file that is watched already is watched once."""
        for file in files:
            watch = self._libc.inotify_add_watch(self.file, os.fsencode(file), _IN_OPEN)
            if watch < 0 and os.path.exists(file):  # a process may have ended
                raise self._failed(f"watch {file}")

    def started(self, again: Callable[[], Sequence[int]]) -> Iterator[Sequence[int]]:
        """Processes that may be new."""
        os.read(self.file, _EVENTS)
        yield from looks(again)

    def settled(self, again: Callable[[], Sequence[int]]) -> Sequence[int]:
        """Those that can be patched now."""
        return again()

    def let_go(self, pids: Collection[int]) -> None:
        """They are patched, as far as they can be."""

    def is_held(self, pid: int) -> bool:
        """Whether it has not begun to run `main`."""
        return False

    def _failed(self, what: str) -> IpbpError:
        reason = os.strerror(ctypes.get_errno())
        return IpbpError("follow-failed", f"the kernel does not let us {what}: {reason}", "Try without --follow.")
