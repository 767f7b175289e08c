"""A debugger that is attached to a program and stays so, with ipbp in it: the warm session of a user who edits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo import OPTIONS, QUIET
from terminal import Terminal

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.outcome import Outcome, find_outcome

ATTACH = {
    "gdb": (("attach {pid}", "(gdb) "), ("continue &", "Continuing.")),
    "lldb": (("process attach --pid {pid}", "Architecture set to"), ("continue", "resuming")),
}
"""What is typed, and what is said when it is done."""
DETACH = {"gdb": "detach", "lldb": "process detach"}
PATIENCE = 300.0
"""Seconds for what a debugger may do with a gigabyte of debug information."""


class Warm:
    """`name`: "gdb" or "lldb". The program runs in its background."""

    def __init__(self, name: str, terminal: Terminal, folder: Path) -> None:
        self.name, self._terminal, self.folder = name, terminal, folder

    def tell(self, line: str) -> str:
        """One line, until the prompt is back; what was said."""
        self._terminal.type(line)
        self._terminal.wait_for(lambda: self._terminal.said.rstrip().endswith(f"({self.name})"), line, PATIENCE)
        return self._terminal.said

    def type(self, line: str) -> None:
        self._terminal.type(line)

    def wait_for(self, text: str) -> None:
        self._terminal.wait_for(lambda: text in self._terminal.said, repr(text), PATIENCE)

    def hotpatch(self, words: str = "") -> Outcome:
        """Its outcome, which must be a patch."""
        self._terminal.type(f"hotpatch --json {words}".rstrip())
        self._terminal.wait_for(lambda: find_outcome(self._terminal.said) is not None, "an answer", PATIENCE)
        outcome = find_outcome(self._terminal.said)
        if outcome is None or outcome["outcome"] not in ("patched", "undone"):
            raise SystemExit(f"hotpatch did not patch: {outcome}")
        return outcome

    def engine_megabytes(self) -> float:
        """The most memory that its engine has had (VmHWM of proc(5))."""
        ours = self._terminal.pid
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                rows = dict(row.split(":", 1) for row in status.read_text().splitlines() if ":" in row)
                words = (status.parent / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it ended meanwhile
                continue
            if b"ipbp.engine" in words and int(rows["PPid"]) == ours:
                return int(rows["VmHWM"].split()[0]) * 1024 / 1e6
        raise SystemExit(f"{self.name} has no engine")


@contextmanager
def warm(name: str, pid: int, folder: Path, is_plain: bool = False) -> Iterator[Warm]:
    """The debugger is started in `folder`, attached, and the program runs on; it is let go at the end. `is_plain`:
    without ipbp."""
    started = [find_debugger(name)] if is_plain else [sys.executable, "-m", "ipbp.cli.main", name]
    command = [*started, *OPTIONS[name]]
    with Terminal(command, folder) as terminal:
        session = Warm(name, terminal, folder)
        terminal.wait_for_text(rf"^\({name}\)")
        for line in QUIET[name]:
            session.tell(line)
        for line, said in ATTACH[name]:
            session.type(line.format(pid=pid))
            session.wait_for(said)
        try:
            yield session
        finally:
            if os.path.exists(f"/proc/{pid}"):
                terminal.type(DETACH[name])
            terminal.type("quit")
            terminal.wait_for_end()
