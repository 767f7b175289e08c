"""The program that answers line by line, in each language: what it is asked, what it says, and the text that is edited
in it are the same in all of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cargo_project import build_cargo_project
from scenario import Project
from sessions import build_one

LANGUAGES = ("c", "c++", "rust")


@dataclass(frozen=True)
class Answerer(Project):
    """`source` as it was built has the text `was_built` and the time `built_at`. `scope`: of its functions but `main`,
    as gdb wants them named. `caller`: of `plain`."""

    language: str
    source: Path
    scope: str
    main: str
    caller: str
    was_built: str
    built_at: int  # nanoseconds since the epoch

    def line_of(self, text: str) -> int:
        """The first line that has it."""
        return next(number for number, line in enumerate(self.source.read_text().splitlines(), 1) if text in line)

    def replace(self, old: str, new: str) -> None:
        """Edit the source, in which `old` stands once."""
        text = self.source.read_text()
        assert text.count(old) == 1, f"{old!r} must stand once in {self.source.name}"
        self.source.write_text(text.replace(old, new))

    def restore(self) -> None:
        self.source.write_text(self.was_built)
        os.utime(self.source, ns=(self.built_at, self.built_at))


def build_answerer(folder: Path, language: str) -> Answerer:
    """`language`: c, c++ or rust. Without optimisation."""
    if language == "rust":
        crate = build_cargo_project(folder, workspace="ledger")
        project, source = Project(folder, crate.program), folder / "src/main.rs"
        names = ("ledger::", "ledger::main", "ledger::answer")
    elif language == "c++":
        project, source = build_one(folder, "till", "-O0", compiler="g++", suffix="cpp"), folder / "till.cpp"
        names = ("shop::", "main", "main")
    else:
        project, source = build_one(folder, "frames", "-O0"), folder / "frames.c"
        names = ("", "main", "main")
    kept = source.read_text(), source.stat().st_mtime_ns
    return Answerer(project.folder, project.program, language, source, *names, *kept)
