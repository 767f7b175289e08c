"""Programs that are started are held before `main` until they are patched, where the kernel allows that.

`ipbp.cli.holder` does it, in a process of its own. Where it cannot, programs are found as soon as they run.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress

from ipbp.cli.arrivals import Arrivals
from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.host.journal import identity
from ipbp.kept import file_state

_LINES = 1 << 16  # bytes
_PATIENCE, _TICK = 5.0, 0.001  # seconds


def starts_of(named: Collection[int]) -> HeldStarts | Arrivals:
    """Of programs that are started from now on. `named`: only in the families of these, when there are any. Errors:
    `follow-failed`."""
    held = HeldStarts(named)
    if not held.reason:
        return held
    held.__exit__()
    return Arrivals(f"what is started later is not held until it is patched: {held.reason}")


class HeldStarts:
    """As `Arrivals`. `reason`: why nothing can be held, "" where it can."""

    note = ""

    def __init__(self, named: Collection[int]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ipbp.cli.holder", *map(str, named)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is ours
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self.file = self._output.fileno()
        self._unread = b""
        self._held: set[int] = set()
        self._watched: set[tuple[int, ...]] = set()
        first = self._lines()[0]
        self.reason = "" if first == "ready" else first.removeprefix("no ")

    def __enter__(self) -> HeldStarts:
        return self

    def __exit__(self, *unused: object) -> None:
        self._input.close()
        self._output.close()
        with suppress(subprocess.TimeoutExpired):  # what is just being started has not come to its `main`
            self._process.wait(_PATIENCE)

    def watch(self, files: Iterable[str]) -> None:
        """These, too. A file that is watched already is not looked into again."""
        for file in files:
            try:
                status = os.stat(file)
            except OSError:  # the process whose file it is has ended
                continue
            key = file_state(status)
            if key not in self._watched:
                self._watched.add(key)
                self._tell(f"watch {main_of(file):x} {os.fsencode(file).hex()}")

    def started(self, again: Callable[[], Sequence[int]]) -> Iterator[Sequence[int]]:
        """Processes that are new, held but for those that cannot be. What is none of ours is let go."""
        yield self._reported(again)

    def settled(self, again: Callable[[], Sequence[int]]) -> Sequence[int]:
        """Those that can be patched now. What is just being started is told of when it is there."""
        found = [pid for pid in again() if not self._traces(pid)]
        is_told = bool(select.select([self.file], [], [], 0)[0])
        return list(dict.fromkeys([*found, *(self._reported(again) if is_told else ())]))

    def _reported(self, again: Callable[[], Sequence[int]]) -> list[int]:
        """Those of ours that are told of now."""
        found, lines = [], self._lines()
        ours = set(again())  # after that: what is told of is there
        for line in lines:
            word, _, number = line.partition(" ")
            pid = int(number)
            if word == "held" and pid in ours:
                _wait_until_stopped(pid)
                self._held.add(pid)
            elif word == "held":
                self._tell(f"go {pid}")
            found += [pid] if pid in ours else []
        return found

    def let_go(self, pids: Collection[int]) -> None:
        """They are patched, as far as they can be."""
        for pid in self._held.intersection(pids):  # others are told of later
            self._held.discard(pid)
            self._tell(f"go {pid}")

    def is_held(self, pid: int) -> bool:
        """Whether it has not begun to run `main`."""
        return pid in self._held

    def _traces(self, pid: int) -> bool:
        try:
            return int(procfs.status(pid, pid)["TracerPid"]) == self._process.pid
        except IpbpError:  # it has ended
            return False

    def _tell(self, line: str) -> None:
        try:
            self._input.write(line.encode() + b"\n")
        except BrokenPipeError as error:
            raise self._ended() from error

    def _lines(self) -> list[str]:
        """At least one. Errors: `follow-failed`."""
        while True:
            content = os.read(self.file, _LINES)
            if not content:
                raise self._ended()
            *lines, self._unread = (self._unread + content).split(b"\n")
            if lines:
                return [line.decode() for line in lines]

    def _ended(self) -> IpbpError:
        fact = f"the process that holds programs has ended, with status {self._process.poll()}"
        return IpbpError("follow-failed", fact, "Start it again; report this as a bug when nobody has killed it.")


def name_of(pid: int) -> str:
    """What tells this start of a program from others; its number when it has ended, or may not be looked at."""
    try:
        return identity(pid)
    except IpbpError:
        return str(pid)


def _wait_until_stopped(pid: int) -> None:
    # The signal was sent; it takes it before any instruction of its own.
    deadline = time.monotonic() + _PATIENCE
    while procfs.state(pid, pid) not in ("T", None) and time.monotonic() < deadline:
        time.sleep(_TICK)


def main_of(file: str) -> int:
    """Link address of a program's `main`; 0 where it has no symbol of that name."""
    from ipbp.build.places import cache_folder  # these take a while to load
    from ipbp.formats.elf_image import read_image
    from ipbp.formats.elf_index_cache import IndexCache

    try:
        symbols = read_image(file, cache=IndexCache(cache_folder("symbols"))).symbols
    except (IpbpError, OSError):  # it has ended, or is no program that could be patched
        return 0
    rows = symbols.by_name.get("main", ())
    return int(symbols.address[rows[0]]) if len(rows) == 1 else 0
