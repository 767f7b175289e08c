"""Waiting for programs to be started: the kernel tells of every file that is opened to be executed (inotify(7)).

What is watched is the file that a process runs, by /proc/PID/exe, so also one that was replaced under its name. The
event comes before the new program is there (execve(2)), and reading the file causes one, too; so whoever is woken looks
a few times, and finds nobody new now and then. What is found has begun already: `ipbp.cli.starts` is better where the
kernel allows it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from ipbp.build.inotify import OPENED, Inotify
from ipbp.errors import IpbpError
from ipbp.host import procfs

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
        try:
            self._inotify = Inotify()
        except OSError as error:
            raise _failed("watch programs", error) from error
        self.file = self._inotify.fileno()

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(self, *unused: object) -> None:
        self._inotify.__exit__(*unused)

    def watch(self, files: Iterable[str]) -> None:
        """These, too. A file that is watched already is watched once."""
        for file in files:
            try:
                self._inotify.watch(file, OPENED)
            except OSError as error:
                if os.path.exists(file):  # a process may have ended
                    raise _failed(f"watch {file}", error) from error

    def started(self, again: Callable[[], Sequence[int]]) -> Iterator[Sequence[int]]:
        """Processes that may be new."""
        list(self._inotify.events())  # which file it was does not matter
        yield from looks(again)

    def settled(self, again: Callable[[], Sequence[int]]) -> Sequence[int]:
        """Those that can be patched now."""
        return again()

    def let_go(self, pids: Collection[int]) -> None:
        """They are patched, as far as they can be."""

    def is_held(self, pid: int) -> bool:
        """Whether it has not begun to run `main`."""
        return False


def _failed(what: str, error: OSError) -> IpbpError:
    fact = f"the kernel does not let us {what}: {error.strerror}"
    return IpbpError("follow-failed", fact, "Try without --follow.")
