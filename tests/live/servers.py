"""Servers on loopback ports of their own."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable

# Below net.ipv4.ip_local_port_range: what connections get by chance does not collide with these (ip(7)).
_PORTS = range(20000, 32000)


def start_listening(start: Callable[[int], subprocess.Popen[bytes]]) -> tuple[subprocess.Popen[bytes], int]:
    """The server that `start` makes for a free port, when it listens; the port."""
    port = _free_port()
    server = start(port)
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert server.poll() is None, f"it ended with {server.returncode}"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return server, port


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
