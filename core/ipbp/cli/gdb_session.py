"""GDB, driven through its machine interface, attached to one process for the time of one `hotpatch`.

gdb lives in a session of its own, so that Ctrl-C in our terminal reaches us and not gdb.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from pygdbmi.IoManager import IoManager

from ipbp.cli.engine_python import session_environment
from ipbp.cli.outcome import Outcome, find_outcome
from ipbp.cli.path import load_line
from ipbp.errors import IpbpError

Record = dict[str, Any]

_QUIET = (
    "confirm off",
    "pagination off",
    "print thread-events off",
    "debuginfod enabled off",
    "breakpoint pending on",
    "auto-solib-add off",
)
_POLL = 0.2  # seconds between two looks at the deadline
GRACE = 10.0
"""Seconds that the debugger has to let go before it is killed."""


class GdbSession:
    """`with GdbSession(...) as session:` the process is let go at the end, whatever happened in between."""

    def __init__(self, gdb: str, pid: int, deadline: float) -> None:
        """`deadline` is a time of time.monotonic(); nothing waits longer."""
        self._pid = pid
        self._deadline = deadline
        self._token = 0
        self._console = ""
        self._stopped = False
        self._attached = False
        self._loaded = False
        self._process = subprocess.Popen(
            [gdb, "-nx", "--quiet", "--interpreter=mi3"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            env=session_environment(),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._io = IoManager(self._process.stdin, self._process.stdout, None, 0.002)

    def __enter__(self) -> GdbSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        if kind is not None:
            self.interrupt()
        self.close()

    def attach(self) -> float:
        """Attach, with the plugin loaded; the time (time.perf_counter()) at which the program was stopped.

        Errors: `debugger-attach`, and those of `load`.
        """
        self.load()
        began = time.perf_counter()
        reply = self._command(f"-target-attach {self._pid}")
        if reply["message"] == "error":
            raise _failed("debugger-attach", f"gdb cannot attach to process {self._pid}", reply)
        self._attached = True
        self._wait_for(lambda: self._stopped)
        return began

    def load(self) -> None:
        """Everything that can be done before the program stops. Errors: `debugger-plugin`."""
        if self._loaded:
            return
        for setting in _QUIET:
            self._command(f"-gdb-set {setting}")
        # The program's signals are its own business: none of them stops it here.
        self._console_command("handle all nostop noprint pass", "debugger-command")
        self._console_command(load_line("gdb"), "debugger-plugin")
        self._console_command("hotpatch help", "debugger-plugin")  # everything is imported before the program stops
        self._loaded = True

    def hotpatch(self, arguments: str) -> Outcome:
        """What `hotpatch ARGUMENTS` said. Errors: `debugger-command` when it said nothing that we understand."""
        self._console = ""
        reply = self._command(f"-interpreter-exec console {_quoted('hotpatch ' + arguments)}")
        if reply["message"] == "error" and find_outcome(self._console) is None:
            raise _failed("debugger-command", "gdb could not run `hotpatch`", reply)
        self._wait_for(lambda: find_outcome(self._console) is not None)
        outcome = find_outcome(self._console)
        assert outcome is not None
        return outcome

    def resume(self) -> None:
        """Let the program go on, attached."""
        self._console_command("handle SIGINT nostop noprint pass", "debugger-command")
        self._console_command("continue &", "debugger-command")

    def allow(self, seconds: float) -> None:
        """From now on nothing waits longer than this."""
        self._deadline = time.monotonic() + seconds

    def drain(self) -> None:
        """Read what gdb says of its own accord: it would wait for us when there is too much of it."""
        for record in self._io.get_gdb_response(0, raise_error_on_timeout=False):
            self._take(record)
        self._console = ""

    def interrupt(self) -> None:
        """Ctrl-C for the command that runs now: the plugin gives it up, and rolls back what it had begun."""
        self._process.send_signal(signal.SIGINT)

    def detach(self) -> None:
        """Let the process go; the debugger stays."""
        if self._attached:
            self._command("-target-detach")
            self._attached = False

    def close(self) -> None:
        """Detach and end gdb; kill it when it does not answer (the kernel then lets the process go)."""
        self._deadline = time.monotonic() + GRACE
        try:
            if self._attached and self._process.poll() is None:
                self.detach()
            if self._process.poll() is None:
                self._write("-gdb-exit")
            self._process.wait(timeout=5)
        except (IpbpError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _console_command(self, line: str, code: str) -> None:
        reply = self._command(f"-interpreter-exec console {_quoted(line)}")
        if reply["message"] == "error":
            raise _failed(code, f"gdb does not accept `{line}`", reply)

    def _command(self, line: str) -> Record:
        """The result record of one command."""
        self._token += 1
        token = self._token
        self._write(f"{token}{line}")
        found: list[Record] = []

        def is_answered() -> bool:
            found.extend(r for r in self._latest if r["type"] == "result" and r.get("token") == token)
            return bool(found)

        self._latest: list[Record] = []
        self._wait_for(is_answered)
        return found[0]

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def _wait_for(self, is_true: Callable[[], bool]) -> None:
        """Read records until the condition holds. Errors: `debugger-died`, `debugger-timeout`."""
        while not is_true():
            if time.monotonic() > self._deadline:
                raise IpbpError("debugger-timeout", "gdb did not finish in time", "Try again with a longer --timeout.")
            self._latest = self._io.get_gdb_response(_POLL, raise_error_on_timeout=False)
            for record in self._latest:
                self._take(record)
            if not self._latest and self._process.poll() is not None:
                raise IpbpError("debugger-died", "gdb ended by itself", "Try `--debugger lldb`.", self._console)

    def _take(self, record: Record) -> None:
        if record["type"] in ("console", "output") and isinstance(record["payload"], str):
            self._console += record["payload"]
        elif record["type"] == "notify" and record["message"] == "stopped":
            self._stopped = True
        elif record["type"] == "notify" and record["message"] == "running":
            self._stopped = False


def _quoted(text: str) -> str:
    """A C string of the machine interface (gdb manual, "GDB/MI Input Syntax")."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _failed(code: str, fact: str, reply: Record) -> IpbpError:
    said = (reply.get("payload") or {}).get("msg", "")
    return IpbpError(code, f"{fact}: {said.strip()}", "`hotpatch doctor` inside the debugger says what is missing.")
