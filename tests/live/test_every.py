"""`hotpatch --all`: one debugger that holds a whole server patches every process of it, with one build."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from debuggers import Gdb, Lldb
from prefork import Prefork, serving
from scenario import Edit, Project
from sessions import build_one, is_stopped
from test_many import ANSWER, compiles, counting_compiler

from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

AGAIN = Edit("again", "prefork.c", [("return x + 1000;", "return x + 2000;")], [], ["answer"])


class GdbOfMany:
    """gdb with an inferior for each process, and one more for another program."""

    def __init__(self, path: str, **environment: str) -> None:
        self.debugger = Gdb(path, **environment)
        self.tell("set schedule-multiple on")
        self.tell(load_line("gdb"))

    def tell(self, line: str) -> str:
        return str(self.debugger.tell(line))

    def attach(self, pids: list[int]) -> None:
        for number, pid in enumerate(pids, 1):
            if number > 1:
                self.tell("add-inferior")
                self.tell(f"inferior {number}")
            said = self.tell(f"attach {pid}")
            self.debugger.wait_until(lambda pid=pid: is_stopped(pid))  # type: ignore[misc]
            assert "rror" not in said, said
        self.tell("inferior 1")

    def resume(self) -> None:
        self.tell("continue &")

    def stop(self) -> None:
        self.tell("interrupt -a")

    def selected(self) -> int:
        said = self.tell("python print('<', gdb.selected_inferior().pid, '>')")
        return int(said.rpartition("<")[2].partition(">")[0])


class LldbOfMany:
    """lldb with a target for each process."""

    def __init__(self, path: str, **environment: str) -> None:
        self.debugger = Lldb(path, **environment)
        self.tell(load_line("lldb"))
        self._count = 0

    def tell(self, line: str) -> str:
        return str(self.debugger.tell(line).partition("\n")[2])

    def attach(self, pids: list[int]) -> None:
        for pid in pids:
            self.tell(f"target create /proc/{pid}/exe")
            self.tell(f"process attach -p {pid}")
            self.debugger.wait_until(lambda pid=pid: is_stopped(pid))  # type: ignore[misc]
        self._count = len(pids)
        self.tell("target select 0")

    def resume(self) -> None:
        for number in range(self._count):
            self.tell(f"target select {number}")
            self.tell("process continue")
        self.tell("target select 0")

    def stop(self) -> None:
        for number in range(self._count):
            self.tell(f"target select {number}")
            self.tell("process interrupt")
        self.tell("target select 0")

    def selected(self) -> int:
        said = self.tell("script print('<', lldb.debugger.GetSelectedTarget().GetProcess().GetProcessID(), '>')")
        return int(said.rpartition("<")[2].partition(">")[0])


Session = GdbOfMany | LldbOfMany


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return build_one(tmp_path / "project", "prefork", "-O0")


@pytest.fixture
def server(project: Project) -> Iterator[Prefork]:
    with serving(project.program, 2) as running:
        yield running


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, str]:
    return counting_compiler(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[int]:
    """A process of another program."""
    with subprocess.Popen([shutil.copy(shutil.which("sleep") or "", tmp_path / "sleep"), "600"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture(params=["gdb", "lldb"])
def session(
    request: pytest.FixtureRequest, runs: tuple[Path, str], server: Prefork, stranger: int
) -> Iterator[Session]:
    """It ends before the processes: a traced one cannot be waited for."""
    kind = {"gdb": GdbOfMany, "lldb": LldbOfMany}[request.param]
    session = kind(request.getfixturevalue(request.param), PATH=runs[1])
    with session.debugger:
        yield session


def rows(session: Session, words: str) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
    """The outcome of each process, and that of all."""
    said = session.tell(f"hotpatch {words} --all --json")
    found = [json.loads(line[line.find("{") :]) for line in said.splitlines() if '{"outcome":' in line]
    assert found, said
    return {row["pid"]: row for row in found if "pid" in row}, found[-1]


def outcomes(session: Session, words: str) -> dict[int, str]:
    return {pid: row["outcome"] for pid, row in rows(session, words)[0].items()}


def test_every_process_of_the_server_is_patched(
    project: Project, server: Prefork, stranger: int, session: Session, runs: tuple[Path, str]
) -> None:
    family = [server.master, *server.workers()]
    for pid in family:
        server.ask(pid, "1")  # so that all have bound what they call
    session.attach([*family, stranger])
    project.edit(ANSWER)
    done, total = rows(session, "apply")
    assert {pid: row["outcome"] for pid, row in done.items()} == dict.fromkeys(family, "patched"), [
        row["text"] for row in done.values()
    ]
    assert (total["outcome"], total["status"]) == ("patched", 0)
    assert any(f"process {stranger}, runs another program" in note for note in total["notes"])
    assert compiles(runs[0]) == 1
    assert session.selected() == server.master
    assert all(is_stopped(pid) for pid in family)

    session.resume()
    assert {server.ask(pid, "1")[0] for pid in family} == {1001}
    session.stop()
    session.debugger.wait_until(lambda: all(is_stopped(pid) for pid in family))
    assert outcomes(session, "apply") == dict.fromkeys(family, "unchanged")
    project.edit(AGAIN)
    assert outcomes(session, "apply") == dict.fromkeys(family, "patched")
    assert outcomes(session, "undo 0") == dict.fromkeys(family, "undone")
    session.resume()
    assert {server.ask(pid, "1")[0] for pid in family} == {2}


def test_a_patch_file_is_applied_to_every_process_of_the_server(
    project: Project, server: Prefork, stranger: int, session: Session, runs: tuple[Path, str], tmp_path: Path
) -> None:
    family = [server.master, *server.workers()]
    session.attach([*family, stranger])
    project.edit(ANSWER)
    assert outcomes(session, "apply") == dict.fromkeys(family, "patched")
    file = tmp_path / "answer.patch"
    said = session.tell(f"hotpatch save {file}")
    assert file.is_file(), said
    assert outcomes(session, "undo") == dict.fromkeys(family, "undone")
    (project.folder / "prefork.c").unlink()

    done, total = rows(session, f"load {file}")
    assert {pid: row["outcome"] for pid, row in done.items()} == dict.fromkeys(family, "patched"), [
        row["text"] for row in done.values()
    ]
    assert any(f"process {stranger}, runs another program" in note for note in total["notes"])
    assert compiles(runs[0]) == 1
    assert outcomes(session, f"load {file}") == dict.fromkeys(family, "unchanged")
    session.resume()
    assert {server.ask(pid, "1")[0] for pid in family} == {1001}
