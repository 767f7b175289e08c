"""A program with a linked library and with plugins, built as a project of several targets would be."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scenario import PROGRAMS

SOURCES = ("host.c", "library.c", "plugin.c", "library.h", "plugin_part.h")


@dataclass(frozen=True)
class Host:
    """`folder` has the sources, the objects, `host`, `liblibrary.so` and `plugin.so`."""

    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "host"

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} must stand once in {name}"
        path.write_text(text.replace(old, new))


def build_host(
    folder: Path, *flags: str, library: Sequence[str] = (), host: Sequence[str] = (), link: Sequence[str] = ()
) -> Host:
    """`flags` for all objects; `library`, `host`: more of them for those; `link`: of the library."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        shutil.copy(PROGRAMS / name, folder / name)
    commands = [
        compile_command(folder, "host.c", *flags, *host, f'-DPLUGIN="{folder}/plugin.so"'),
        compile_command(folder, "library.c", *flags, "-fPIC", *library),
        compile_command(folder, "plugin.c", *flags, "-fPIC"),
    ]
    for row in commands:
        run(folder, *row["arguments"])
    (folder / "compile_commands.json").write_text(json.dumps(commands))
    run(folder, "gcc", "-shared", *link, "library.o", "-o", "liblibrary.so")
    run(folder, "gcc", "-shared", "plugin.o", "-o", "plugin.so")
    pie = [flag for flag in host if flag in ("-no-pie", "-pie")]
    run(folder, "gcc", *pie, "host.o", "-o", "host", "-L.", "-llibrary", f"-Wl,-rpath,{folder}", "-ldl")
    return Host(folder)


def add_library(host: Host, source: str, *flags: str) -> None:
    """One more source, compiled to a library of its name; it is in the compilation database, too."""
    database = host.folder / "compile_commands.json"
    command = compile_command(host.folder, source, *flags)
    run(host.folder, *command["arguments"])
    database.write_text(json.dumps([*json.loads(database.read_text()), command]))
    stem = Path(source).stem
    run(host.folder, "gcc", "-shared", f"{stem}.o", "-o", f"{stem}.so")


def compile_command(folder: Path, source: str, *flags: str) -> dict[str, list[str] | str]:
    arguments = ["gcc", *flags, "-g", "-MD", "-c", source, "-o", f"{Path(source).stem}.o"]
    return {"directory": str(folder), "file": source, "arguments": arguments}


def run(folder: Path, *words: str) -> None:
    subprocess.run(words, cwd=folder, check=True)
