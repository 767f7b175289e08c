"""A bounded load of HTTP/1.1 keep-alive connections on loopback, each of which must live to the end.

Every connection asks for one small document again and again and notes whether the newest answer carried the header
that the edit adds. A connection that is closed, reset, or answered wrongly counts as dropped; none is opened again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import closing
from types import TracebackType

CONNECTIONS = 8
PAUSE = 0.002  # seconds between two requests of one connection: some 2,000 requests a second in all
REQUEST = b"GET /hello.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Load:
    """`with Load(port, header, body) as load:` runs until the block ends."""

    def __init__(self, port: int, header: bytes, body: bytes) -> None:
        self.answers = [0] * CONNECTIONS
        self.has_header = [False] * CONNECTIONS
        self.dropped: list[str] = []
        self._port, self._header, self._body = port, header, body
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over = True
        self._thread.join()

    def expect(self, header: bytes) -> None:
        """From now on the next answers tell by another header."""
        self._header = header

    def all_answers(self, with_header: bool) -> None:
        """Returns when every connection's newest answer has (or has not) the header, or fails."""
        before = list(self.answers)
        self._wait_for(
            lambda: all(
                has is with_header and new > old + 2
                for has, new, old in zip(self.has_header, self.answers, before, strict=True)
            )
        )

    def _wait_for(self, is_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not is_true():
            assert not self.dropped, self.dropped
            assert time.monotonic() < deadline, (self.answers, self.has_header)
            time.sleep(0.01)

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection(number) for number in range(CONNECTIONS)))

    async def _connection(self, number: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            with closing(writer):
                while not self._is_over:
                    writer.write(REQUEST)
                    await asyncio.wait_for(self._answer(number, reader), timeout=20)
                    await asyncio.sleep(PAUSE)
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            self.dropped.append(f"connection {number} after {self.answers[number]} answers: {error!r}")

    async def _answer(self, number: int, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError(head)
        if await reader.readexactly(len(self._body)) != self._body:
            raise ValueError("another body")
        self.has_header[number] = self._header in head
        self.answers[number] += 1
