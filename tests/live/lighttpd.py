"""lighttpd 1.4, built from the distribution's own source package with the package's own compiler flags."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from servers import start_listening
from source_packages import unpack

CONFIGURATION = """
server.modules = ("mod_deflate")
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.max-keep-alive-requests = 65535
server.max-keep-alive-idle = 120
server.errorlog = "{folder}/error.log"
"""

# As in debian/rules: all hardening flags, and no executable stack.
PACKAGE_FLAGS = {
    "DEB_BUILD_MAINT_OPTIONS": "hardening=+all",
    "DEB_CFLAGS_MAINT_APPEND": "-Wa,--noexecstack",
    "DEB_LDFLAGS_MAINT_APPEND": "-Wl,-z,noexecstack",
}
WITHOUT = ("pcre2", "pcre", "zlib", "bzip2", "brotli", "zstd", "libdeflate")


@dataclass(frozen=True)
class Lighttpd:
    """A built tree. `folder` holds configure; the sources are in `folder/src`."""

    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "src" / "lighttpd"

    def start(self, documents: Path) -> tuple[subprocess.Popen[bytes], int]:
        """The server, listening on a loopback port; the port."""

        def start(port: int) -> subprocess.Popen[bytes]:
            configuration = documents / "lighttpd.conf"
            configuration.write_text(CONFIGURATION.format(folder=documents, port=port))
            return subprocess.Popen([self.program, "-D", "-f", configuration, "-m", self.folder / "src" / ".libs"])

        return start_listening(start)


def build_lighttpd(folder: Path) -> Lighttpd:
    """Fetch, unpack, configure and make. About half a minute on two cores."""
    source = unpack("lighttpd", folder, PACKAGE_FLAGS)
    options = ["--disable-dependency-tracking", *(f"--without-{name}" for name in WITHOUT)]
    source.run("./configure", "--quiet", *options)
    source.run("make", "--silent", "-j2", "-C", "src", f"CC={source.recorder}")
    (source.folder / "compile_commands.json").write_text(json.dumps(source.commands()))
    return Lighttpd(source.folder)
