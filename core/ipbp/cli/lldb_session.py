"""LLDB, driven line by line through its standard input, attached to one process for the time of one `hotpatch`.

lldb has no machine interface of its own. Each line is followed by one that prints a mark, so that we know when lldb
is done with it. lldb lives in a session of its own, so that Ctrl-C in our terminal reaches us and not lldb.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable

from ipbp.cli.engine_python import session_environment
from ipbp.cli.outcome import Outcome, find_outcome
from ipbp.cli.path import load_line
from ipbp.errors import IpbpError

_SETTINGS = ("use-color false", "auto-confirm true", "symbols.enable-external-lookup false")
# Signals that lldb itself needs; all others are the program's own business.
_OURS = {"SIGINT", "SIGTRAP", "SIGSTOP", "SIGKILL", "SIGCONT"}
_POLL = 0.2  # seconds between two looks at the deadline
GRACE = 10.0
"""Seconds that the debugger has to let go before it is killed."""


class LldbSession:
    """`with LldbSession(...) as session:` the process is let go at the end, whatever happened in between."""

    def __init__(self, lldb: str, pid: int, deadline: float) -> None:
        """`deadline` is a time of time.monotonic(); nothing waits longer."""
        self._pid = pid
        self._deadline = deadline
        self._said = ""
        self._marks = 0
        self._attached = False
        self._loaded = False
        self._process = subprocess.Popen(
            [lldb, "--no-lldbinit"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            env=session_environment(),
        )

    def __enter__(self) -> LldbSession:
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
        self._send(f"process attach -p {self._pid}")
        self._wait_for(lambda: " stopped" in self._said or "error:" in self._said)
        if "error:" in self._said:
            raise _failed("debugger-attach", f"lldb cannot attach to process {self._pid}", self._said)
        self._attached = True
        others = sorted(s.name for s in signal.Signals if s.name not in _OURS and not s.name.startswith("SIGRT"))
        self._command(f"process handle -s false -n false -p true {' '.join(others)}")
        return began

    def load(self) -> None:
        """Everything that can be done before the program stops. Errors: `debugger-plugin`."""
        if self._loaded:
            return
        for setting in _SETTINGS:
            self._command(f"settings set {setting}")
        said = self._command(load_line("lldb"))
        if "error:" in said:
            raise _failed("debugger-plugin", "lldb cannot load the plugin", said)
        self._command("hotpatch help")  # everything is imported before the program stops
        self._loaded = True

    def hotpatch(self, arguments: str) -> Outcome:
        """What `hotpatch ARGUMENTS` said. Errors: `debugger-command` when it said nothing that we understand."""
        said = self._command(f"hotpatch {arguments}")
        if find_outcome(said) is None and "error:" in said:
            raise _failed("debugger-command", "lldb could not run `hotpatch`", said)
        self._wait_for(lambda: find_outcome(self._said) is not None)
        outcome = find_outcome(self._said)
        assert outcome is not None
        return outcome

    def resume(self) -> None:
        """Let the program go on, attached."""
        self._command("process handle -s false -n false -p true SIGINT")
        self._command("process continue")

    def allow(self, seconds: float) -> None:
        """From now on nothing waits longer than this."""
        self._deadline = time.monotonic() + seconds

    def drain(self) -> None:
        """Read what lldb says of its own accord: it would wait for us when there is too much of it."""
        assert self._process.stdout is not None
        while select.select([self._process.stdout], [], [], 0)[0] and os.read(self._process.stdout.fileno(), 1 << 16):
            continue

    def interrupt(self) -> None:
        """Ctrl-C for the command that runs now: the plugin gives it up, and rolls back what it had begun."""
        self._process.send_signal(signal.SIGINT)

    def detach(self) -> None:
        """Let the process go; the debugger stays."""
        if self._attached:
            self._command("process detach")
            self._attached = False

    def close(self) -> None:
        """Detach and end lldb; kill it when it does not answer (the kernel then lets the process go)."""
        self._deadline = time.monotonic() + GRACE
        try:
            if self._attached and self._process.poll() is None:
                self.detach()
            if self._process.poll() is None:
                self._send("quit")
            self._process.wait(timeout=5)
        except (IpbpError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _command(self, line: str) -> str:
        """What lldb printed for one line."""
        self._marks += 1
        # The mark is computed, so that the echo of the line is not taken for its output.
        self._send(f"{line}\nscript print('ipbp-mark-%d' % {self._marks})")
        mark = f"ipbp-mark-{self._marks}\n"
        self._wait_for(lambda: mark in self._said)
        return self._said

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._said = ""
        self._process.stdin.write(line.encode() + b"\n")

    def _wait_for(self, is_true: Callable[[], bool]) -> None:
        """Read until the condition holds. Errors: `debugger-died`, `debugger-timeout`."""
        assert self._process.stdout is not None
        while not is_true():
            if time.monotonic() > self._deadline:
                raise IpbpError("debugger-timeout", "lldb did not finish in time", "Try again with a longer --timeout.")
            if not select.select([self._process.stdout], [], [], _POLL)[0]:
                continue
            read = os.read(self._process.stdout.fileno(), 1 << 16)
            if not read:
                raise IpbpError("debugger-died", "lldb ended by itself", "Try `--debugger gdb`.", self._said)
            self._said += read.decode(errors="replace")


def _failed(code: str, fact: str, said: str) -> IpbpError:
    reason = next((row.partition("error:")[2].strip() for row in said.splitlines() if "error:" in row), said.strip())
    return IpbpError(code, f"{fact}: {reason}", "`hotpatch doctor` inside the debugger says what is missing.")
