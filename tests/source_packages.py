"""Programs from the distribution's own source packages, built with the package's own compiler flags.

The source comes through apt with lists and sources of its own, in the test's folder: the system's are not changed,
and no privilege is needed. `make` runs with a compiler wrapper that writes down each command, which becomes the
compile_commands.json that a user would have from bear or from a build system.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_RECORDER = """#!/bin/sh
printf '%s\\0' "$PWD" "$#" "$@" >>"$IPBP_TEST_RECORD"
exec {compiler} "$@"
"""

Command = dict[str, object]
"""A row of compile_commands.json."""


@dataclass(frozen=True)
class SourceTree:
    """An unpacked source package in `folder`; `environment` has the package's compiler flags, `recorder` is a
    compiler that writes down its command, `compiler` what it really is."""

    folder: Path
    recorder: Path
    record: Path
    environment: Mapping[str, str] = field(repr=False)
    compiler: str = "gcc"

    def run(self, *command: str | Path) -> None:
        """A step of the build, in the tree."""
        environment = {**self.environment, "IPBP_TEST_RECORD": str(self.record)}
        subprocess.run(command, cwd=self.folder, env=environment, check=True, stdout=subprocess.DEVNULL)

    def commands(self) -> list[Command]:
        """Those that the recorder wrote down: directory, number of words, words; links are left out."""
        fields = iter(self.record.read_text().split("\0")[:-1])
        commands: list[Command] = []
        for directory in fields:
            words = [next(fields) for _ in range(int(next(fields)))]
            sources = [word for word in words if word.endswith((".c", ".cpp"))]
            if "-c" in words and len(sources) == 1:
                commands.append({"directory": directory, "file": sources[0], "arguments": [self.compiler, *words]})
        return commands


def unpack(package: str, folder: Path, settings: Mapping[str, str] | None = None, compiler: str = "gcc") -> SourceTree:
    """The source package as the distribution has it. `settings`: of dpkg-buildflags, as in debian/rules."""
    description = _fetch(package, folder)
    tree = folder / "tree"
    subprocess.run(["dpkg-source", "--no-check", "-x", description, tree], check=True, stdout=subprocess.DEVNULL)
    recorder = folder / "recorder"
    recorder.write_text(_RECORDER.replace("{compiler}", compiler))
    recorder.chmod(0o755)
    environment = {**os.environ, **(settings or {}), "LC_ALL": "C"}
    flags = subprocess.run(
        ["dpkg-buildflags", "--export=cmdline"], cwd=tree, env=environment, check=True, capture_output=True, text=True
    ).stdout
    found = {**environment, **dict(re.findall(r'([A-Z]+)="([^"]*)"', flags))}
    return SourceTree(tree, recorder, folder / "record", found, compiler)


def _fetch(package: str, folder: Path) -> Path:
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
    options = [
        f"Dir::Etc::SourceList={sources}",
        "Dir::Etc::SourceParts=-",
        f"Dir::State::Lists={lists}",
        "APT::Sandbox::User=root",
    ]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "source", "--download-only", package], cwd=folder, check=True, stderr=subprocess.DEVNULL)
    return next(folder.glob(f"{package}_*.dsc"))
