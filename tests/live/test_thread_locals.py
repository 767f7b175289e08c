"""Threads keep their variables: every model of thread-local storage, in threads that run and in those to come."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from scenario import PROGRAMS, Project, Talk
from sessions import Outcome, ipbp

pytestmark = pytest.mark.live

BUILDS = {
    "pie": ("gcc", ["-O2"], []),
    "fixed": ("gcc", ["-O0", "-fno-pie"], ["-no-pie"]),
    "general": ("gcc", ["-O0", "-fPIC"], []),
    "no plt": ("clang", ["-O2", "-fPIC", "-fno-plt"], []),
    "descriptors": ("gcc", ["-O2", "-fPIC", "-mtls-dialect=gnu2"], []),
    "static": ("gcc", ["-O2"], ["-static"]),
}
EDIT = ("    return sum;", "    return sum * 2 + own[0];")


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def build(folder: Path, compiler: str, flags: Sequence[str], link: Sequence[str]) -> Project:
    """locals.c and threads.c with a compile_commands.json."""
    folder.mkdir(parents=True)
    rows = []
    for name in ("locals", "threads"):
        shutil.copy(PROGRAMS / f"{name}.c", folder)
        arguments = [compiler, *flags, "-g", "-c", f"{name}.c", "-o", f"{name}.o"]
        subprocess.run(arguments, cwd=folder, check=True)
        rows.append({"directory": str(folder), "file": f"{name}.c", "arguments": arguments})
    (folder / "compile_commands.json").write_text(json.dumps(rows))
    program = folder / "threads"
    subprocess.run([compiler, "locals.o", "threads.o", *link, "-o", program, "-pthread"], cwd=folder, check=True)
    return Project(folder, program)


@pytest.fixture
def start(tmp_path: Path, clang: str) -> Iterator[Callable[[str], tuple[Project, Talk]]]:
    """Builds and starts one of BUILDS."""
    running = []

    def make(name: str) -> tuple[Project, Talk]:
        compiler, flags, link = BUILDS[name]
        project = build(tmp_path / "project", clang if compiler == "clang" else compiler, flags, link)
        running.append(Talk(project.program))
        return project, running[-1]

    yield make
    for talk in running:
        talk.kill()


def edit(project: Project, *pairs: tuple[str, str]) -> None:
    """Replace texts of locals.c."""
    path = project.folder / "locals.c"
    text = path.read_text()
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)


def patch(talk: Talk, debugger: str, *more: str) -> Outcome:
    """One `ipbp apply` that patches."""
    outcome = ipbp("apply", talk.process.pid, debugger, *more)
    assert outcome["outcome"] == "patched", outcome
    return outcome


def numbers(line: str) -> list[int]:
    return [int(word) for word in line.split()]


def expected(threads: int, visits: int) -> list[int]:
    """What `tell` of the old code says in each thread after so many visits: 1111 and errno for each, and 14."""
    return [14 + visits * 1111 * (n + 1) + (n + 1 if visits else 0) for n in range(threads)]


@pytest.mark.parametrize("build_name", BUILDS)
def test_running_threads_keep_their_values(
    build_name: str, debugger: str, start: Callable[[str], tuple[Project, Talk]]
) -> None:
    project, talk = start(build_name)
    talk.ask("visit")
    assert numbers(talk.ask("tell")) == expected(8, 1)
    edit(project, EDIT, ("    zero += 1000 * x;", "    zero += 1000 * x; own[0] += 1;"))
    patch(talk, debugger)
    assert numbers(talk.ask("tell")) == [2 * n + 1 for n in expected(8, 1)]
    # A thread that starts now has the initial values.
    assert talk.ask("start") == "9"
    assert numbers(talk.ask("tell"))[8] == 2 * 14 + 1
    talk.ask("visit")
    assert numbers(talk.ask("tell"))[:8] == [2 * n + 2 for n in expected(8, 2)]
    assert numbers(talk.ask("tell"))[8] == 2 * expected(9, 1)[8] + 2
    assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
    assert numbers(talk.ask("tell"))[:8] == expected(8, 2)
    assert talk.close() == 0
