"""A small client of the Debug Adapter Protocol, as an editor is one: requests, responses, events.

The format is that of the protocol's specification ("Base Protocol"): a header with the length, then JSON.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

Message = dict[str, Any]
PATIENCE = 30.0


class Adapter:
    """A debug adapter on its standard streams. `events`: all that came, in order; `responses` likewise."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        self.events: list[Message] = []
        self._responses: dict[int, Message] = {}
        self._unread = b""
        self._number = 0

    def __enter__(self) -> Adapter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def send(self, command: str, **arguments: Any) -> int:
        """Send a request; its number."""
        self._number += 1
        row = {"seq": self._number, "type": "request", "command": command, "arguments": arguments}
        content = json.dumps(row).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(content) + content)
        return self._number

    def response(self, number: int) -> Message:
        """The response's body. A failure of the request fails the test."""
        self.wait_until(lambda: number in self._responses)
        row = self._responses[number]
        assert row["success"], row
        body: Message = row.get("body") or {}
        return body

    def ask(self, command: str, **arguments: Any) -> Message:
        return self.response(self.send(command, **arguments))

    def wait_for_event(self, name: str, since: int = 0) -> Message:
        """The body of the first event of this name, not counting those before `since`."""

        def found() -> list[Message]:
            return [row for row in self.events[since:] if row["event"] == name]

        self.wait_until(lambda: bool(found()))
        body: Message = found()[0].get("body", {})
        return body

    def names(self, since: int = 0) -> list[str]:
        return [row["event"] for row in self.events[since:]]

    def output(self, since: int = 0) -> str:
        """What the user's console shows."""
        rows = [row for row in self.events[since:] if row["event"] == "output"]
        return "".join(row["body"]["output"] for row in rows)

    def wait_until(self, is_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_true():
            assert time.monotonic() < deadline, self.events[-5:]
            self._receive()

    def _receive(self) -> None:
        assert self.process.stdout is not None
        if select.select([self.process.stdout], [], [], 0.05)[0]:
            read = os.read(self.process.stdout.fileno(), 1 << 16)
            assert read, f"the adapter ended: {self.events[-5:]}"
            self._unread += read
        while b"\r\n\r\n" in self._unread:
            header, _, rest = self._unread.partition(b"\r\n\r\n")
            length = int(header.rpartition(b":")[2])
            if len(rest) < length:
                return
            self._unread = rest[length:]
            self._take(json.loads(rest[:length]))

    def _take(self, row: Message) -> None:
        if row["type"] == "event":
            self.events.append(row)
        elif row["type"] == "response":
            self._responses[row["request_seq"]] = row
