"""lighttpd 1.4, built from the distribution's own source package with the package's own compiler flags.

The source comes through apt with lists and sources of its own, in the test's folder: the system's are not changed,
and no privilege is needed. `make` runs with a compiler wrapper that writes down each command, which becomes the
compile_commands.json that a user would have from bear or from a build system.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

RECORDER = """#!/bin/sh
printf '%s\\0' "$PWD" "$#" "$@" >>"$IPBP_TEST_RECORD"
exec gcc "$@"
"""

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
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        configuration = documents / "lighttpd.conf"
        configuration.write_text(CONFIGURATION.format(folder=documents, port=port))
        server = subprocess.Popen([self.program, "-D", "-f", configuration, "-m", self.folder / "src" / ".libs"])
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                assert server.poll() is None, (documents / "error.log").read_text()
                assert time.monotonic() < deadline
            else:
                return server, port


def build_lighttpd(folder: Path) -> Lighttpd:
    """Fetch, unpack, configure and make. About half a minute on two cores."""
    description = fetch_source("lighttpd", folder)
    tree = folder / "tree"
    subprocess.run(["dpkg-source", "--no-check", "-x", description, tree], check=True, stdout=subprocess.DEVNULL)
    recorder, record = folder / "recorder", folder / "record"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    environment = {**os.environ, **PACKAGE_FLAGS, "IPBP_TEST_RECORD": str(record), "LC_ALL": "C"}
    flags = subprocess.run(
        ["dpkg-buildflags", "--export=cmdline"], cwd=tree, env=environment, check=True, capture_output=True, text=True
    ).stdout
    settings = dict(re.findall(r'([A-Z]+)="([^"]*)"', flags))
    quiet = {"cwd": tree, "env": {**environment, **settings}, "check": True, "stdout": subprocess.DEVNULL}
    options = ["--disable-dependency-tracking", *(f"--without-{name}" for name in WITHOUT)]
    subprocess.run(["./configure", "--quiet", *options], **quiet)
    subprocess.run(["make", "--silent", "-j2", "-C", "src", f"CC={recorder}"], **quiet)
    (tree / "compile_commands.json").write_text(json.dumps(recorded_commands(record)))
    return Lighttpd(tree)


def fetch_source(package: str, folder: Path) -> Path:
    """Download a source package from where the system has its binary packages; the .dsc file."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    suites = {tuple(row.split()) for row in targets.splitlines() if "debian" in row or "ubuntu" in row}
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    sources = folder / "sources.list"
    sources.write_text("".join(f"deb-src {' '.join(suite)}\n" for suite in sorted(suites) if len(suite) == 3))
    options = [f"Dir::Etc::SourceList={sources}", "Dir::Etc::SourceParts=-", f"Dir::State::Lists={lists}"]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "source", "--download-only", package], cwd=folder, check=True, stderr=subprocess.DEVNULL)
    return next(folder.glob(f"{package}_*.dsc"))


def recorded_commands(record: Path) -> list[dict[str, object]]:
    """compile_commands.json of what the recorder wrote: directory, number of words, words; links are left out."""
    fields = iter(record.read_text().split("\0")[:-1])
    commands: list[dict[str, object]] = []
    for directory in fields:
        words = [next(fields) for _ in range(int(next(fields)))]
        sources = [word for word in words if word.endswith(".c")]
        if "-c" in words and len(sources) == 1:
            commands.append({"directory": directory, "file": sources[0], "arguments": ["gcc", *words]})
    return commands
