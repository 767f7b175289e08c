"""A debugger in a terminal of its own: lines typed, output read back, as a person would see it.

Debuggers behave differently when they are not on a terminal, and what is shown here is meant to be what a user gets.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>()][0-9A-B]?|[\r\x07\x08]")


class Terminal:
    """`with Terminal(command, folder) as terminal:` the program in it is ended at the end of the block."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.said = ""
        """What was printed since the last `type`, without colours and cursor movements."""
        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "COLUMNS": "200", "LINES": "50", "LC_ALL": "C.UTF-8"}
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._ours)

    def type(self, line: str) -> None:
        """Enter one line."""
        self.said = ""
        os.write(self._ours, line.encode() + b"\n")

    def wait_for(self, is_true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Read on until the condition holds. Fails with everything that was said when it does not come true."""
        deadline = time.monotonic() + seconds
        is_open = True
        while not is_true():
            if time.monotonic() > deadline or not is_open:
                raise SystemExit(f"{what} did not happen; the debugger said:\n{self.said}")
            is_open = self._read(0.05)

    def wait_for_text(self, pattern: str) -> str:
        """What the pattern matches first; `^` and `$` are the ends of a line."""
        compiled = re.compile(pattern, re.MULTILINE)
        self.wait_for(lambda: compiled.search(self.said) is not None, repr(pattern))
        found = compiled.search(self.said)
        assert found is not None
        return found.group().strip()

    def wait_for_end(self) -> None:
        """Returns when the program has ended."""
        self.wait_for(lambda: self._process.poll() is not None, "the end")

    def _read(self, seconds: float) -> bool:
        # Whether there may be more to read.
        if not select.select([self._ours], [], [], seconds)[0]:
            return True
        try:
            read = os.read(self._ours, 1 << 16)
        except OSError:  # EIO: the other end of the terminal is closed (pty(7))
            self._process.wait()
            return False
        self.said += _CONTROL.sub("", read.decode(errors="replace"))
        return True
