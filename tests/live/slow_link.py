"""A link between a debugger and a stub that counts packets and takes its time.

As a program, `slow_link.py LOG MILLISECONDS COMMAND...`: gdb's end is this program's input and output, the stub's that
of COMMAND. Everything arrives MILLISECONDS later, each way. A line of the log for each packet that the debugger sends:
its beginning. `slow_place` is such a link to a port.
"""

from __future__ import annotations

import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKET = re.compile(rb"\$([^#]*)#|\x03")


def main() -> None:
    log, delay, command = sys.argv[1], float(sys.argv[2]) / 1000, sys.argv[3:]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stub, open(log, "wb", 0) as record:
        assert stub.stdin is not None
        assert stub.stdout is not None
        back = threading.Thread(target=carry, args=(stub.stdout.fileno(), 1, delay, None), daemon=True)
        back.start()
        carry(0, stub.stdin.fileno(), delay, record)
        stub.stdin.close()
        back.join()


@contextmanager
def slow_place(place: str, log: Path, delay: float) -> Iterator[str]:
    """Host and port of a link to `place`, for one connection; `delay`: seconds, each way."""
    host, _, port = place.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def join() -> None:
            with listener.accept()[0] as near, socket.create_connection((host, int(port))) as far:
                with open(log, "wb", 0) as record:
                    back = threading.Thread(target=carry, args=(far.fileno(), near.fileno(), delay, None))
                    back.start()
                    carry(near.fileno(), far.fileno(), delay, record)
                far.shutdown(socket.SHUT_WR)
                back.join()

        joined = threading.Thread(target=join)
        joined.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        joined.join()


def carry(source: int, target: int, delay: float, record: object) -> None:
    """Everything that comes from `source`, `delay` seconds later; packets are written down."""
    waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def deliver() -> None:
        while True:
            due, content = waiting.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not content:
                return
            os.write(target, content)

    thread = threading.Thread(target=deliver)
    thread.start()
    unread = b""
    while content := os.read(source, 1 << 16):
        waiting.put((time.monotonic() + delay, content))
        if record is not None:
            unread += content
            last = 0
            for packet in _PACKET.finditer(unread):
                last = packet.end()
                record.write((packet[1] or b"interrupt")[:60].hex().encode() + b"\n")  # type: ignore[attr-defined]
            unread = unread[last:]
    waiting.put((0.0, b""))
    thread.join()


if __name__ == "__main__":
    main()
