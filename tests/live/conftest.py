"""What several files of live tests share: real servers and cargo workspaces are built once for all of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from answerer import Answerer, build_answerer
from cargo_project import CargoProject, build_cargo_project
from lighttpd import Lighttpd, build_lighttpd
from scenario import Talk
from sessions import Session, debug_with

from ipbp.cli.debuggers import find_debugger

BODY = b"hello\n"


@pytest.fixture(scope="session")
def lighttpd(tmp_path_factory: pytest.TempPathFactory) -> Lighttpd:
    """lighttpd, built from its source package."""
    return build_lighttpd(tmp_path_factory.mktemp("lighttpd"))


@pytest.fixture
def server(lighttpd: Lighttpd, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The running server and its port; /hello.txt is `BODY`."""
    (tmp_path / "hello.txt").write_bytes(BODY)
    process, port = lighttpd.start(tmp_path)
    yield process, port
    process.terminate()
    # 1 is its status when connections were still open; a crash would be a negative one.
    assert process.wait(timeout=20) in (0, 1), (tmp_path / "error.log").read_text()


@pytest.fixture(scope="session")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Answerer]:
    """The answering program, by language."""

    @cache
    def build(language: str) -> Answerer:
        return build_answerer(tmp_path_factory.mktemp("answerer") / "project", language)

    return build


@pytest.fixture
def project(request: pytest.FixtureRequest, answerer: Callable[[str], Answerer]) -> Iterator[Answerer]:
    """What a file of tests has that brings none of its own: in C if the test names no language, with its source as it
    was built."""
    project = answerer(getattr(request, "param", "c"))
    yield project
    project.restore()


@pytest.fixture
def talk(project: Answerer) -> Iterator[Talk]:
    """Its program."""
    program = Talk(project.program)
    yield program
    program.kill()


@pytest.fixture(params=["gdb", "lldb"])
def session(request: pytest.FixtureRequest, talk: Talk) -> Iterator[Session]:
    """Attached to the program, which is stopped. It ends before the program: a traced one cannot be waited for."""
    path = find_debugger("lldb" if request.param.startswith("lldb") else "gdb")
    with debug_with(request.param, path) as session:
        session.attach(talk.process.pid)
        yield session


@pytest.fixture(scope="session")
def build_workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CargoProject]:
    """The cargo workspaces of `programs`, by name."""

    @cache
    def build(name: str) -> CargoProject:
        return build_cargo_project(tmp_path_factory.mktemp("cargo") / name, workspace=name)

    return build


@pytest.fixture
def crates(request: pytest.FixtureRequest, build_workspace: Callable[[str], CargoProject]) -> Iterator[CargoProject]:
    """The workspace that a file of tests names WORKSPACE, with its sources as they were built."""
    project = build_workspace(request.module.WORKSPACE)
    yield project
    project.restore()


@pytest.fixture
def running(crates: CargoProject) -> Iterator[Talk]:
    """Its program."""
    program = Talk(crates.program)
    yield program
    program.kill()
