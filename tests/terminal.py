"""A program in a pseudo-terminal, typed to and read as a person would."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

PATIENCE = 60.0
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """`raw`: all that was shown; `screen`: the same without control sequences."""

    def __init__(self, command: Sequence[str | Path], folder: Path, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.raw = self.screen = ""
        self._seen = 0  # of the screen, by `wait_for`
        self.process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", **environment},
            preexec_fn=_take_terminal,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)  # what still runs in the terminal is told that it is gone

    def type(self, line: str) -> None:
        os.write(self._master, line.encode() + b"\n")

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def wait_for(self, pattern: str) -> str:
        """What was shown since the last call, once `pattern` is in it, up to there."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.compile(pattern).search(self.screen, self._seen)) is None:
            shown = self.screen[self._seen :]
            assert time.monotonic() < deadline, f"nothing came after {shown!r} that has {pattern!r} in it"
            self.read()
        shown = self.screen[self._seen : found.end()]
        self._seen = found.end()
        return shown

    def read(self, seconds: float = 0.05) -> bool:
        """Take what is shown, waiting for it for at most this long; whether there was something."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            shown = os.read(self._master, 1 << 16).decode(errors="replace")
        except OSError:  # nobody has the other end any more
            return False
        self.raw += shown
        self.screen += _CONTROL.sub("", shown)
        return bool(shown)

    def wait_for_end(self) -> int:
        """The exit status; `screen` is then all that was shown."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.screen
            self.read()
        while self.read(0):
            continue
        return self.process.returncode


def _take_terminal() -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.close(os.open(os.ttyname(0), os.O_RDWR))  # the first terminal that a session opens is its own (tty(4))
