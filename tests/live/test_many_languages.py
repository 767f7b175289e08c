"""Many processes of one C++ or Rust program: patched by one command, or by one debugger that holds them all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cargo_project import CargoProject, build_cargo_project
from prefork import Prefork, serving
from scenario import Edit, Project
from sessions import build_one
from test_every import GdbOfMany, LldbOfMany, Session, outcomes
from test_many import following, ipbp, next_row, numbers

pytestmark = [pytest.mark.live, pytest.mark.compiles, pytest.mark.timeout(600)]

# Each in one debugger; the long runs go through both in both.
EACH = [
    pytest.param("C++", "gdb"),
    pytest.param("C++", "lldb", marks=pytest.mark.slow),
    pytest.param("Rust", "gdb", marks=pytest.mark.slow),
    pytest.param("Rust", "lldb"),
]
each = pytest.mark.parametrize(("built_once", "debugger"), EACH, indirect=["built_once"], scope="module")


@dataclass(frozen=True)
class Built:
    """`before` in `file`: what adds one, to be edited."""

    project: Project | CargoProject
    file: str
    before: str

    def edit(self, number: int, before: int = 1) -> None:
        text = self.before.replace("1", str(before)), self.before.replace("1", str(number))
        self.project.edit(Edit(f"add {number}", self.file, [text], [], []))


@pytest.fixture(scope="module")
def built_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("many")
    if request.param == "Rust":
        return Built(build_cargo_project(folder / "hive", workspace="hive"), "src/main.rs", "        x + 1\n")
    project = build_one(folder / "project", "prefork", "-O0", compiler="g++", suffix="cpp")
    return Built(project, "prefork.cpp", "return x + 1;")


@pytest.fixture
def built(built_once: Built) -> Iterator[Built]:
    """With the source as it was built."""
    source = built_once.project.folder / built_once.file
    kept = source.read_bytes()
    yield built_once
    source.write_bytes(kept)


@pytest.fixture
def server(built: Built) -> Iterator[Prefork]:
    with serving(built.project.program, 2) as running:
        yield running


@each
def test_a_server_is_patched_and_followed(built: Built, server: Prefork, debugger: str) -> None:
    family = [server.master, *server.workers()]
    assert {server.ask(pid, line)[0] for pid in family for line in ("1", "-5")} == {2, -1}
    built.edit(1000)
    done = ipbp("apply", debugger, "--yes", "--pid", numbers(family))
    assert done.outcomes() == dict.fromkeys(family, "patched"), done
    assert done.total["plans"] == 1
    assert {server.ask(pid, line)[0] for pid in family for line in ("1", "-5")} == {1001, -1}
    heir = server.start_worker("fork")
    assert {server.ask(heir, line)[0] for line in ("1", "-5")} == {1001, -1}

    built.edit(2000, before=1000)
    with following(server, debugger) as process:
        rows = [next_row(process) for _ in range(len(family) + 1)]
        assert {row["pid"]: row["outcome"] for row in rows} == dict.fromkeys([*family, heir], "patched"), rows
        server.start_worker("exec")
        assert next_row(process)["outcome"] == "patched"
        held = server.start_worker("exec")
        row = next_row(process)
        assert (row["pid"], row["outcome"]) == (held, "patched"), row
        process.kill()
    assert {server.ask(held, line)[0] for line in ("1", "-5")} == {2001, -1}
    everybody = [server.master, *server.workers()]
    undone = ipbp("undo", debugger, "--pid", numbers(everybody), "0")
    assert undone.outcomes() == dict.fromkeys(everybody, "undone"), undone
    assert {server.ask(pid, line)[0] for pid in everybody for line in ("1", "-5")} == {2, -1}


@pytest.mark.slow
@each
def test_a_server_that_one_debugger_holds_is_patched(
    built: Built, server: Prefork, debugger: str, request: pytest.FixtureRequest
) -> None:
    family = [server.master, *server.workers()]
    kind: type[Session] = GdbOfMany if debugger == "gdb" else LldbOfMany
    session = kind(request.getfixturevalue(debugger))
    with session.debugger:
        session.attach(family)
        built.edit(1000)
        assert outcomes(session, "apply") == dict.fromkeys(family, "patched")
        session.resume()
        assert {server.ask(pid, line)[0] for pid in family for line in ("1", "-5")} == {1001, -1}
