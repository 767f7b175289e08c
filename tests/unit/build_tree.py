"""Small source trees for the tests of `ipbp.build`, and a look at what a compile left behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from ipbp.build.command import Command

COMPILERS = ("gcc", "clang-19")


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(w) for w in words], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout


def database(root: Path, *entries: dict[str, object]) -> Path:
    path = root / "compile_commands.json"
    path.write_text(json.dumps(list(entries)))
    return path


def command(root: Path, line: str, source: str = "a.c", output: str | None = "a.o") -> Command:
    return Command(root, root / source, root / output if output else None, tuple(line.split()))


def contents(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its time and content."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def set_age(path: Path, seconds: float) -> None:
    """Make a file this much older than its time stamp says now (younger when negative)."""
    stamp = path.stat().st_mtime_ns - int(seconds * 1e9)
    os.utime(path, ns=(stamp, stamp))
