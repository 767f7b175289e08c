"""A process of a random program, which is asked in lines and answers in lines that end with a dot."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

TIMEOUT = 120.0
"""Seconds that a program has to answer."""


class Running:
    def __init__(self, *command: str | Path) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self._pending = b""

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *unused: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def tell(self, *lines: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer will say how it ended
            self.process.stdin.write("".join(line + "\n" for line in lines).encode())

    def ask(self, line: str) -> list[str]:
        """The lines of the answer; how the process ended or that it hangs, where there is none."""
        assert self.process.stdout is not None
        self.tell(line)
        deadline = time.monotonic() + TIMEOUT
        with DefaultSelector() as selector:
            selector.register(self.process.stdout, EVENT_READ)
            while not self._is_answered():
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return [*self._take(), "(no answer)"]
                received = os.read(self.process.stdout.fileno(), 1 << 16)
                if not received:
                    return [*self._take(), f"(ended with status {self.process.wait()})"]
                self._pending += received
        return self._take()

    def _is_answered(self) -> bool:
        said = self._pending.replace(b"\r\n", b"\n")  # as Windows ends lines
        return said == b".\n" or said.endswith(b"\n.\n")

    def _take(self) -> list[str]:
        lines = self._pending.decode(errors="backslashreplace").splitlines()
        self._pending = b""
        return lines
