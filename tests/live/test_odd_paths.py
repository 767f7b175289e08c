"""A project in a folder whose name a shell, a parser or an encoder would trip over: blanks, quotes, a line break, bytes
that are no text, words that look like options."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from cargo_project import EDITS as CARGO_EDITS
from cargo_project import CargoProject, build_cargo_project
from scenario import EDITS, Project, build_project
from sessions import debugged

pytestmark = pytest.mark.live

BODY = next(edit for edit in EDITS if edit.name == "body")
LIBRARY = next(edit for edit in CARGO_EDITS if edit.name == "library")
TEXT = """-o it's "so" $(touch ran) `touch ran`; #x \\ é"""
ALL = TEXT.encode() + b"%41 {name}\n\xff"
ODD = {"text": TEXT.encode(), "line break": b"a\nb", "no text": b"caf\xe9 \xff", "all": ALL}


@pytest.fixture(params=["gdb", "lldb"])
def debugger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def odd(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder; ipbp's own files are in such folders as well."""
    folder = tmp_path / os.fsdecode(ODD[request.param])
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(folder / name))
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("odd", "compiler"),
    [("all", "gcc"), *(pytest.param(odd, c, marks=pytest.mark.slow) for odd in ODD for c in ("g++", "clang-19"))],
    indirect=["odd"],
)
def test_c_and_cxx(debugger: str, odd: Path, compiler: str) -> None:
    project = build_project(odd / "project", *(("gcc", ["-x", "c++", "-O0"]) if compiler == "g++" else (compiler, [])))
    as_a_build_system_writes_it(project)
    with debugged(project.program, debugger) as (session, talk):
        assert talk.ask("body 5") == "6"
        project.edit(BODY)
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", json.dumps(outcome)
        assert talk.ask("body 5") == "1005"
        # The debugger has read the patch, wherever that lies.
        session.stop()
        session.break_at(function="body")
        session.resume()
        talk.tell("body 5")
        session.wait_until_stopped()
        assert "talk.c" in session.where()
        session.delete_breakpoints()
        session.resume()
        assert talk.hear() == "1005"
        assert session.call("undo")["outcome"] == "undone"
        assert talk.ask("body 5") == "6"
    assert not list(odd.rglob("ran"))


def as_a_build_system_writes_it(project: Project) -> None:
    """The bytes of the paths, which CMake and Bear do not escape."""
    rows = json.loads((project.folder / "compile_commands.json").read_text())
    text = json.dumps(rows, ensure_ascii=False)
    (project.folder / "compile_commands.json").write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("odd", ["no text", pytest.param("all", marks=pytest.mark.slow)], indirect=True)
def test_without_a_database(debugger: str, odd: Path) -> None:
    project = build_project(odd / "project", "gcc", ["-O0"])
    (project.folder / "compile_commands.json").unlink()
    with debugged(project.program, debugger) as (session, talk):
        project.edit(BODY)
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", json.dumps(outcome)
        assert talk.ask("body 5") == "1005"


@pytest.mark.parametrize("odd", ["text", pytest.param("line break", marks=pytest.mark.slow)], indirect=True)
def test_cargo(debugger: str, odd: Path) -> None:
    """Not with "%41", which rust-lld takes for "A", nor with "{name}", a variable to cargo."""
    project: CargoProject = build_cargo_project(odd / "project")
    with debugged(project.program, debugger) as (session, talk):
        project.edit(LIBRARY)
        for line, before, _ in LIBRARY.ask:
            assert talk.ask(line) == before
        outcome = session.call("apply")
        assert outcome["outcome"] == "patched", json.dumps(outcome)
        for line, _, after in LIBRARY.ask:
            assert talk.ask(line) == after
    assert not list(odd.rglob("ran"))


def test_cargo_does_not_build_where_a_path_is_no_text(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, subprocess.CalledProcessError)):
        build_cargo_project(tmp_path / os.fsdecode(b"caf\xe9"))
