"""memcached, built from the distribution's own source package with the package's own compiler flags."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from servers import start_listening
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
        words = ["-u", "root", "-l", "127.0.0.1", "-U", "0", "-t", str(THREADS), "-m", "16"]
        return start_listening(lambda port: subprocess.Popen([self.folder / "memcached", *words, "-p", str(port)]))


def build_memcached(folder: Path) -> Memcached:
    """Fetch, unpack, configure and make. About half a minute on two cores."""
    source = unpack("memcached", folder, PACKAGE_FLAGS)
    source.run("./configure", "--quiet", "--disable-dependency-tracking")
    source.run("make", "--silent", "-j2", f"CC={source.recorder}", "memcached")
    (source.folder / "compile_commands.json").write_text(json.dumps(source.commands()))
    return Memcached(source.folder)
