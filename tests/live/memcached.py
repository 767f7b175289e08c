"""memcached, built from the distribution's own source package with the package's own compiler flags."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from source_packages import unpack

THREADS = 4
# As in debian/rules, but without SASL and TLS, whose libraries this needs nothing of.
PACKAGE_FLAGS = {"DEB_BUILD_MAINT_OPTIONS": "hardening=+all"}


@dataclass(frozen=True)
class Memcached:
    """A built tree."""

    folder: Path

    def start(self) -> tuple[subprocess.Popen[bytes], int]:
        """The server with its worker threads, listening on a loopback port; the port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["-u", "root", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", str(THREADS), "-m", "16"]
        server = subprocess.Popen([self.folder / "memcached", *words])
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                assert server.poll() is None
                assert time.monotonic() < deadline
            else:
                return server, port


def build_memcached(folder: Path) -> Memcached:
    """Fetch, unpack, configure and make. About half a minute on two cores."""
    source = unpack("memcached", folder, PACKAGE_FLAGS)
    source.run("./configure", "--quiet", "--disable-dependency-tracking")
    source.run("make", "--silent", "-j2", f"CC={source.recorder}", "memcached")
    (source.folder / "compile_commands.json").write_text(json.dumps(source.commands()))
    return Memcached(source.folder)
