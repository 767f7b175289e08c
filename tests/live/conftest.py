"""What several files of live tests share: real servers and cargo workspaces are built once for all of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from cargo_project import CargoProject, build_cargo_project
from lighttpd import Lighttpd, build_lighttpd
from scenario import Project, Talk
from sessions import Session, build_one, debug_with

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
def built_frames(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return build_one(tmp_path_factory.mktemp("frames") / "project", "frames", "-O0")


@pytest.fixture
def project(built_frames: Project) -> Iterator[Project]:
    """What a file of tests has that brings none of its own: `programs/frames.c`, with its source as it was built."""
    source, kept = built_frames.folder / "frames.c", built_frames.folder.parent / "frames.c"
    if not kept.exists():
        shutil.copy2(source, kept)
    yield built_frames
    shutil.copy2(kept, source)


@pytest.fixture
def talk(project: Project) -> Iterator[Talk]:
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
