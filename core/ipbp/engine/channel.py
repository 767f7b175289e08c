"""The engine's end of the pipe: requests in, questions, progress and one final answer out.

File descriptor 1 is moved aside before anything else is imported, and points at stderr from then on: native
libraries print, and a stray line would break the protocol.
"""

from __future__ import annotations

import base64
import json
import os
import select
import sys
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO

from ipbp.errors import IpbpError


class Channel:
    """JSON lines over two binary streams. `request` is the id that is being answered."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._request = 0
        self._asking = threading.Lock()

    def next_request(self) -> dict[str, Any] | None:
        """The next request, or None when the plugin has closed its end."""
        row = self._receive()
        if row is not None:
            self._request = row.get("id", 0)
        return row

    def answer(self, result: dict[str, Any]) -> None:
        self._send({"id": self._request, "result": result})

    def fail(self, error: dict[str, Any]) -> None:
        self._send({"id": self._request, "error": error})

    def tell(self, text: str) -> None:
        """A progress line for the user."""
        self._send({"id": self._request, "tell": text})

    def is_wanted(self) -> bool:
        """Whether the plugin still waits for the answer: it has neither left nor asked for something else."""
        return not select.select([self._reader], [], [], 0)[0]

    def read_memory(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """The inferior's bytes of each (address, size), None where not all of them can be read. Any thread may ask."""
        if not ranges:
            return []
        with self._asking:
            self._send({"id": self._request, "ask": "read", "params": {"ranges": [list(r) for r in ranges]}})
            row = self._receive()
        if row is None or "answer" not in row:
            raise IpbpError("protocol", "the plugin did not answer a question of the engine", "Report this as a bug.")
        return [None if part is None else base64.b64decode(part) for part in row["answer"]["bytes"]]

    def _receive(self) -> dict[str, Any] | None:
        line = self._reader.readline()
        if not line:
            return None
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise IpbpError("protocol", "the engine received a line that is no JSON object", "Report this as a bug.")
        return row

    def _send(self, row: dict[str, Any]) -> None:
        self._writer.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        self._writer.flush()


def take_over_standard_streams() -> Channel:
    """The channel on the descriptors that the plugin gave us as stdin and stdout."""
    writer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return Channel(sys.stdin.buffer, writer)
