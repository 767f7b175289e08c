"""Random programs behind a remote stub: for AArch64, which run in qemu-user, for Windows, in gdbserver.exe under Wine.

Such a program is stopped wherever it would wait for its next line, and goes on when it is asked something: that stub
does not hear an interrupt, and ipbp stops nothing behind a stub by itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from differential.builds import AARCH64, SUPPORT, WINDOWS
from differential.case import Case, Step
from differential.hosts import failure
from differential.model import Program
from differential.options import Options
from differential.running import TIMEOUT, Running
from ipbp.cli.gdb_session import GdbSession
from ipbp.cli.outcome import Outcome
from ipbp.errors import Refusal, Refused
from ipbp.host.quiet import BUSY

_SYSROOT = f"/usr/{AARCH64}"
_QEMU = ("qemu-aarch64", "-L", _SYSROOT)
_WINE = ("setsid", "env", f"WINEPREFIX={SUPPORT}/wine", "WINEDEBUG=-all", "wine")
_SERVER = "/usr/share/win64/gdbserver.exe"


def case_of(seed: int, options: Options, folder: Path, keep: Path | None = None) -> Case:
    """The case of these options."""
    kind = StubCase if options.is_aarch64 else WineCase if options.is_windows else Case
    return kind(seed, options, folder, keep)


class StubCase(Case):
    """As `Case`; gdb stays connected."""

    def _run(self, program: Path) -> Running:
        port = _free_port()
        session = StubSession("gdb-multiarch", port, (f"set sysroot {_SYSROOT}", f"file {program}"))
        return StubRunning(session, *_QEMU, "-g", str(port), program)

    def _run_fresh(self, program: Path) -> Running:
        return Running(*_QEMU, program)

    def _patch(self, step: Step, running: Running) -> bool:
        assert isinstance(running, StubRunning)
        outcome = running.hotpatch("apply --json")
        if outcome["outcome"] not in ("patched", "unchanged"):
            error = failure(outcome)
            if error.code == BUSY:  # it stays where it is until it is asked something
                raise Refused([Refusal(error.code, error.fact, error.advice)])
            raise error
        return bool(outcome["outcome"] == "patched")

    def _undo(self, running: Running) -> None:
        assert isinstance(running, StubRunning)
        outcome = running.hotpatch("undo --json")
        if outcome["outcome"] != "undone":
            raise failure(outcome)


class WineCase(StubCase):
    """The same of a program for Windows."""

    def _run(self, program: Path) -> Running:
        SUPPORT.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        session = StubSession(f"{WINDOWS}-gdb", port, (f"file {program}",))
        return StubRunning(session, *_WINE, _SERVER, f"127.0.0.1:{port}", program)

    def _run_fresh(self, program: Path) -> Running:
        return Running(*_WINE, program)

    @contextmanager
    def started(self, program: Program) -> Iterator[Running]:
        """Wine's own server writes into its folder for some seconds longer than its programs run."""
        try:
            with super().started(program) as running:
                yield running
        finally:
            subprocess.run([*_WINE[:-1], "wineserver", "-k", "-w"], check=False)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class StubRunning(Running):
    """A process behind a stub, stopped but while it is asked something. `command`: starts the stub."""

    def __init__(self, session: StubSession, *command: str | Path) -> None:
        super().__init__(*command)
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._session = session
        self._session.load()
        self._session.connect()

    def __exit__(self, *unused: object) -> None:
        self._session.close()
        super().__exit__(*unused)

    def hotpatch(self, words: str) -> Outcome:
        self._session.allow(TIMEOUT)
        return self._session.hotpatch(words)

    def ask(self, line: str) -> list[str]:
        self.tell(line)
        self._session.allow(TIMEOUT)
        while not self._is_answered():
            if not self._session.go_on(self._hear):
                return [*self._take(), f"(ended with status {self.process.wait()})"]
            self._hear()
        return self._take()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        try:
            self._pending += os.read(self.process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return


class StubSession(GdbSession):
    """This gdb, connected to the stub at this port; `commands` say what it has to know of the program."""

    def __init__(self, gdb: str, port: int, commands: Sequence[str]) -> None:
        super().__init__(gdb, 0, time.monotonic() + TIMEOUT)
        self._port, self._commands = port, commands

    def connect(self) -> None:
        """The program is stopped before its first instruction."""
        for line in ("set auto-solib-add on", "set tcp connect-timeout 60", *self._commands):
            self._console_command(line, "debugger-command")
        for line in (f"target remote :{self._port}", "break read"):
            self._console_command(line, "debugger-command")

    def go_on(self, meanwhile: Callable[[], None]) -> bool:
        """Until the program would read again; False when it has ended. `meanwhile` is done over and over."""
        self._stopped = self._has_exited = False
        self._console_command("continue &", "debugger-command")

        def is_over() -> bool:
            meanwhile()
            return self._stopped or self._has_exited

        self._wait_for(is_over)
        return not self._has_exited

    def _take(self, record: dict[str, object]) -> None:
        super()._take(record)
        if record["type"] == "notify" and record["message"] == "thread-group-exited":
            self._has_exited = True
