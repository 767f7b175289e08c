"""C++ as it is built elsewhere: other libraries and unwinders, code models, what compilers add and leave out.

All of it is one program and the same edits; what differs is how it was compiled.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from parlour import BEFORE, STEPS, Step, build_parlour, make
from scenario import PROGRAMS, Project
from sessions import debugged

pytestmark = [pytest.mark.live, pytest.mark.compiles]


@dataclass(frozen=True)
class Build:
    """`debugger`: in which all edits are walked through; in the other one those of one file are."""

    compiler: str
    flags: str
    debugger: str
    link: str = ""
    joined: tuple[str, ...] = ()


LIBCXX = Build("clang++-19", "-O2 -stdlib=libc++", "gdb", "-stdlib=libc++")
_JOINED = ("risky.cpp", "through.cpp", "caught.cpp")
BUILDS = {
    "libc++ -O0": Build("clang++-19", "-O0 -stdlib=libc++", "lldb", "-stdlib=libc++"),
    "fixed address": Build("g++", "-O1 -fno-pie", "gdb", "-no-pie"),
    "large": Build("g++", "-O1 -mcmodel=large -fno-pie", "lldb", "-no-pie"),
    "large, clang": Build("clang++-19", "-O1 -mcmodel=large -fno-pie", "gdb", "-no-pie"),
    "medium": Build("g++", "-O2 -mcmodel=medium", "gdb"),
    "medium, clang": Build("clang++-19", "-O2 -mcmodel=medium", "lldb"),
    # GNU ld does not link what gcc 12 writes of inline functions that several objects have (`defined in discarded`).
    "patchable entries": Build("g++", "-O2 -fpatchable-function-entry=16,4", "gdb", "-fuse-ld=mold"),
    "patchable entries, clang": Build("clang++-19", "-O2 -fpatchable-function-entry=16,4", "lldb"),
    "hidden, CET, no PLT": Build("g++", "-O2 -fvisibility=hidden -fcf-protection=full -fno-plt", "gdb"),
    "hidden, CET, no PLT, clang": Build("clang++-19", "-O2 -fvisibility=hidden -fcf-protection=full -fno-plt", "lldb"),
    "unity": Build("g++", "-O2", "lldb", joined=_JOINED),
    "unity, clang": Build("clang++-19", "-O2", "gdb", joined=_JOINED),
    "split": Build("g++", "-O1 -gsplit-dwarf", "lldb"),
    "split, clang": Build("clang++-19", "-O1 -gsplit-dwarf", "gdb"),
    "type units": Build("g++", "-O2 -fdebug-types-section", "lldb"),
    "type units, clang": Build("clang++-19", "-O2 -fdebug-types-section", "gdb"),
}
_ALWAYS = ("patchable entries", "split", "unity, clang", "type units, clang")
"""Of these a few edits are made whenever the tests are run."""
_ONE_UNIT = STEPS[2:6]  # each of them is an edit of one file
_ALL = STEPS[2:10]
_KEPT = tuple(row for row in BEFORE if row[0].split()[0] in ("caught", "again", "old", "area", "made", "kind", "firm"))


def walk(build: Build, folder: Path, steps: Sequence[Step]) -> None:
    """The edits, one after the other, and all of them taken back; in both debuggers."""
    project = build_parlour(
        folder, *build.flags.split(), compiler=build.compiler, link=build.link.split(), joined=build.joined
    )
    walk_in(build.debugger, project, steps)
    shutil.copytree(PROGRAMS / "parlour", folder, dirs_exist_ok=True)  # as it was built
    walk_in("lldb" if build.debugger == "gdb" else "gdb", project, _ONE_UNIT)


def walk_in(debugger: str, project: Project, steps: Sequence[Step]) -> None:
    with debugged(project.program, debugger) as (session, talk):
        assert [(line, talk.ask(line)) for line, _ in _KEPT] == list(_KEPT)
        for step in steps:
            make(step, project.folder)
            outcome = session.call("apply")
            assert outcome["outcome"] == "patched", (debugger, step.name, outcome)
            assert [(line, talk.ask(line)) for line, _ in step.ask] == list(step.ask), (debugger, step.name)
        assert session.call("undo 0")["outcome"] == "undone"
        assert [(line, talk.ask(line)) for line, _ in _KEPT] == list(_KEPT)
        assert talk.close() == 0


def test_exceptions_pass_through_new_code_where_the_unwinder_is_llvms(tmp_path: Path) -> None:
    walk(LIBCXX, tmp_path / "parlour", _ONE_UNIT)
    libraries = subprocess.run(["ldd", tmp_path / "parlour" / "parlour"], capture_output=True, text=True, check=True)
    assert "libunwind.so" in libraries.stdout


@pytest.mark.parametrize("name", _ALWAYS)
def test_an_edit_of_a_program_that_was_built_otherwise(name: str, tmp_path: Path) -> None:
    walk(BUILDS[name], tmp_path / "parlour", _ONE_UNIT[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUILDS))
def test_the_same_edits_of_a_program_that_was_built_otherwise(name: str, tmp_path: Path) -> None:
    walk(BUILDS[name], tmp_path / "parlour", _ALL)
