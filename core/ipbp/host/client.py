"""The plugin's end of the pipe: starts the engine, asks it, and outlives it.

Nothing here may block the debugger: every wait is a `select` with a short timeout, between which the user's Ctrl-C is
looked for. The engine runs in a session of its own, or a Ctrl-C that is meant for the inferior would kill it; and its
exit status is never asked for, because gdb collects every child's and Python then believes in 0. That it is gone is
seen by its pipe. An engine that died is one error; the next request starts another.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from typing import Any, Callable, Optional

from ipbp.errors import AgreementNeeded, IpbpError, Refusal, Refused
from ipbp.host.engine_log import EngineLog
from ipbp.host.engine_python import find_python
from ipbp.protocol import PROTOCOL_VERSION

__all__ = ["Client", "find_python"]

Message = dict[str, Any]
Serve = Callable[[str, Message], Message]

_TICK = 0.05  # seconds between two looks at the user's Ctrl-C
_HELLO_SECONDS = 60.0  # importing the engine takes half a second; a cold disk takes longer


class Client:
    """One engine at a time, started by the first request. `python`: its interpreter."""

    def __init__(self, python: str, module: str = "ipbp.engine") -> None:
        self._command = [python, "-I", "-m", module]
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._log = EngineLog()
        self._unread = b""
        self._number = 0
        self._is_midway = False  # a request was sent and its answer has not come: the pipe is of no use after an error

    def request(
        self,
        verb: str,
        params: Message,
        serve: Serve,
        tell: Callable[[str], None] = lambda text: None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Message:
        """The engine's answer. `serve` answers its questions, `tell` gets its progress lines.

        Errors: `Refused`, what the engine reports, what `serve` raised, `interrupted` (the engine is killed),
        `engine-died`, `engine-start`, `engine-version`.
        """
        try:
            if self._process is None:
                self._start(interrupted)
            return self._ask(verb, params, serve, tell, interrupted)
        except KeyboardInterrupt:  # gdb's way of telling
            self.kill()
            raise _interrupted() from None
        except Exception:
            if self._is_midway:
                self.kill()
            raise

    def close(self) -> None:
        """End the engine: it leaves when its input ends, and is killed when it does not."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and select.select([process.stdout], [], [], _TICK) == ([], [], []):
            continue
        self.kill()

    def kill(self) -> None:
        """End the engine at once, with the compilers that it started."""
        process, self._process = self._process, None
        self._unread = b""
        self._is_midway = False
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        with contextlib.suppress(ProcessLookupError):  # it has left already
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _start(self, interrupted: Callable[[], bool]) -> None:
        with self._log.open() as log:
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    bufsize=0,
                    env=_clean_environment(),
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                raise IpbpError(
                    "engine-start",
                    f"the engine cannot be started with {self._command[0]}: {error.strerror}",
                    "Set IPBP_PYTHON to the Python that ipbp is installed in.",
                ) from error
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._greet(interrupted)

    def _greet(self, interrupted: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _HELLO_SECONDS
        expired = False

        def give_up() -> bool:
            nonlocal expired
            expired = time.monotonic() > deadline
            return expired or interrupted()

        try:
            hello = self._ask("hello", {"protocol": PROTOCOL_VERSION}, _no_questions, lambda text: None, give_up)
        except (IpbpError, KeyboardInterrupt) as error:
            self.kill()
            if expired:
                raise IpbpError(
                    "engine-silent",
                    f"the engine does not answer within {_HELLO_SECONDS:.0f} seconds",
                    f"Try again, and look into its log: {self._log.path}.",
                ) from error
            raise
        if hello.get("protocol") != PROTOCOL_VERSION:
            self.kill()
            raise IpbpError(
                "engine-version",
                f"{self._command[0]} has another version of ipbp ({hello.get('version', 'unknown')})",
                "Install ipbp once, or set IPBP_PYTHON to the Python that this plugin was installed with.",
            )

    def _ask(
        self, verb: str, params: Message, serve: Serve, tell: Callable[[str], None], interrupted: Callable[[], bool]
    ) -> Message:
        self._log.keep_short()
        self._number += 1
        self._is_midway = True
        self._send({"id": self._number, "verb": verb, "params": params}, interrupted)
        failure: Optional[IpbpError] = None
        while True:
            row = self._receive(interrupted)
            if row.get("id") != self._number:
                raise _garbled(f"an answer to request {row.get('id')}, not {self._number}")
            if "tell" in row:
                tell(str(row["tell"]))
            elif "ask" in row:
                try:
                    answer = {"answer": serve(row["ask"], row.get("params", {}))}
                except IpbpError as error:  # the engine is told that there is none, ends, and we say why
                    failure = failure or error
                    answer = {"failure": error.to_json()}
                self._send({"id": self._number, **answer}, interrupted)
            else:
                self._is_midway = False
                return result_of(row, failure)

    def _send(self, row: Message, interrupted: Callable[[], bool]) -> None:
        process = self._running()
        assert process.stdin is not None
        content = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        while content:
            _, writable, _ = select.select([], [process.stdin], [], _TICK)
            if interrupted():
                self.kill()
                raise _interrupted()
            if writable:
                try:
                    content = content[os.write(process.stdin.fileno(), content) :]
                except BrokenPipeError:
                    raise self._died() from None
                except BlockingIOError:  # less room than a page: wait for more
                    continue

    def _receive(self, interrupted: Callable[[], bool]) -> Message:
        process = self._running()
        assert process.stdout is not None
        parts = [self._unread]
        while b"\n" not in parts[-1]:
            readable, _, _ = select.select([process.stdout], [], [], _TICK)
            if interrupted():
                self.kill()
                raise _interrupted()
            if readable:
                part = os.read(process.stdout.fileno(), 1 << 20)
                if not part:
                    raise self._died()
                parts.append(part)
        line, _, self._unread = b"".join(parts).partition(b"\n")
        return parsed(line)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise IpbpError("engine-died", "the engine was ended in the middle of a request", "Try again.")
        return self._process

    def _died(self) -> IpbpError:
        self.kill()
        return IpbpError(
            "engine-died",
            "the engine died; the process is untouched",
            f"Try again: it is started anew. Its log is {self._log.path}.",
            self._log.last_lines(),
        )


def parsed(line: bytes) -> Message:
    """One message of the engine's. `protocol` when it is no JSON object."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise _garbled(repr(line[:80]))
    return row


def result_of(row: Message, failure: Optional[IpbpError]) -> Message:
    """What a final answer holds. Raises `failure`, or the error that the engine reports, or `protocol`."""
    if failure is not None:
        raise failure
    if "error" in row:
        try:
            error = _error(row["error"])
        except (KeyError, TypeError, AttributeError):
            raise _garbled(f"an error without its parts: {row['error']!r:.80}") from None
        raise error
    result = row.get("result")
    if not isinstance(result, dict):
        raise _garbled("an answer without a result")
    return result


def _error(row: Message) -> IpbpError:
    if row.get("refusals"):
        return Refused(Refusal.from_json(refusal) for refusal in row["refusals"])
    if row.get("hash"):
        return AgreementNeeded(row.get("detail", ""), row["hash"])
    return IpbpError(row["code"], row["fact"], row["advice"], row.get("detail", ""))


def _no_questions(question: str, params: Message) -> Message:
    raise _garbled(f"the question {question!r} at an odd time")


def _garbled(what: str) -> IpbpError:
    return IpbpError("protocol", f"the engine sent {what}", "Report this as a bug; it is started anew.")


def _interrupted() -> IpbpError:
    return IpbpError("interrupted", "interrupted; the process is untouched", "Run the command again when you like.")


def _clean_environment() -> dict[str, str]:
    # The user's, because compilers run in it; without what steers the debugger's own Python and loader.
    dropped = ("PYTHON", "LD_PRELOAD", "LD_AUDIT", "__PYVENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
