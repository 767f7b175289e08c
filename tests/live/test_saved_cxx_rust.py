"""Patch files of C++ and of Rust, applied to other processes of the build when compilers and sources are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cargo_project import EDITS, CargoProject, build_cargo_project
from parlour import STEPS, build_parlour, make
from scenario import Talk
from sessions import Outcome, Session, debug_with, debugged

from ipbp.cli import main
from ipbp.cli.debuggers import find_debugger

pytestmark = [pytest.mark.live, pytest.mark.compiles, pytest.mark.timeout(600)]
WORKSPACE = "market"
BY_NAME = {edit.name: edit for edit in EDITS}
CHANGING = ("statics keep what they hold", "thread-local variable")
"""What each question changes, so that the answer of one that was asked before is another one."""
OTHER = {"gdb": "lldb", "lldb": "gdb"}


def loaded(session: Session, file: Path) -> Outcome:
    outcome = session.call(f"load {file}")
    assert outcome["outcome"] == "patched", outcome["text"]
    again = session.call(f"load {file}")
    assert again["outcome"] == "unchanged", again
    return outcome


def leave_alone(program: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program by itself, where nothing that was kept is known."""
    there = folder / "elsewhere"
    there.mkdir()
    shutil.copy2(program, there)
    monkeypatch.setenv("XDG_CACHE_HOME", str(there / "cache"))
    return there / program.name


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_cxx_that_throws_and_has_virtual_functions(
    debugger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("debuggers.PATIENCE", 300.0)
    project = build_parlour(tmp_path / "parlour", "-O2")
    file = tmp_path / "parlour.patch"
    steps = STEPS[2:6]
    with debugged(project.program, OTHER[debugger]) as (session, _talk):
        for step in steps:
            make(step, project.folder)
        assert session.call("apply")["outcome"] == "patched"
        saved = session.call(f"save {file}")
        assert saved["outcome"] == "ok", saved
    program = leave_alone(project.program, tmp_path, monkeypatch)
    shutil.rmtree(project.folder)
    path = find_debugger(debugger)
    monkeypatch.setenv("PATH", str(tmp_path))
    talk = Talk(program)
    try:
        with debug_with(debugger, path) as session:
            session.attach(talk.process.pid)
            session.resume()
            outcome = loaded(session, file)
            assert {row["name"] for row in outcome["functions"]} == {row["name"] for row in saved["functions"]}
            for step in steps:
                asked = [row for row in step.ask if row[0] != "turns"]
                if step is steps[-1] or step is steps[0]:
                    assert [(line, talk.ask(line)) for line, _ in asked] == list(asked), step.name
            assert talk.ask("turns") == "on"
    finally:
        talk.kill()


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_crates_of_rust(crates: CargoProject, debugger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = [EDITS[0], BY_NAME["unwinding through a patched function"]]
    file = tmp_path / "market.patch"
    with debugged(crates.program, OTHER[debugger]) as (session, _talk):
        crates.edit(*edits)
        assert session.call("apply")["outcome"] == "patched"
        saved = session.call(f"save {file}")
        assert saved["outcome"] == "ok", saved
        assert any(row["is_crate"] for row in saved["units"])
    program = leave_alone(crates.program, tmp_path, monkeypatch)
    path = find_debugger(debugger)
    monkeypatch.setenv("PATH", str(tmp_path))
    away = crates.folder.with_name("away")
    crates.folder.rename(away)
    talk = Talk(program)
    try:
        with debug_with(debugger, path) as session:
            session.attach(talk.process.pid)
            session.resume()
            for edit in edits:
                assert talk.ask(edit.ask[0][0]) == edit.ask[0][1], edit.name
            loaded(session, file)
            for edit in edits:
                for command, _before, after in edit.ask:
                    assert talk.ask(command) == after, edit.name
            assert session.call("undo")["outcome"] == "undone"
            assert talk.ask(edits[0].ask[0][0]) == edits[0].ask[0][1]
    finally:
        talk.kill()
        away.rename(crates.folder)


@pytest.mark.parametrize("debugger", ["gdb", pytest.param("lldb", marks=pytest.mark.slow)])
def test_crates_of_two_build_trees(debugger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = [edit for edit in EDITS if edit.name != "functions of std that the program had not used"]
    project = build_cargo_project(tmp_path / "market")
    old, file = tmp_path / "old", tmp_path / "market.patch"
    shutil.copytree(project.program.parent, old)
    project.edit(*edits)
    project.cargo("build")
    assert main.main(["build-patch", str(old), str(project.program.parent), "-o", str(file)]) == 0
    program = leave_alone(old / WORKSPACE, tmp_path, monkeypatch)
    for gone in (old, project.folder):
        shutil.rmtree(gone)
    path = find_debugger(debugger)
    monkeypatch.setenv("PATH", str(tmp_path))
    talk = Talk(program)
    try:
        with debug_with(debugger, path) as session:
            session.attach(talk.process.pid)
            session.resume()
            for edit in edits:
                assert [talk.ask(command) for command, _, _ in edit.ask] == [row[1] for row in edit.ask], edit.name
            loaded(session, file)
            for edit in edits:
                assert [talk.ask(command) for command, _, _ in edit.ask] == [row[2] for row in edit.ask], edit.name
            assert session.call("undo")["outcome"] == "undone"
            for edit in [edit for edit in edits if edit.name not in CHANGING]:
                assert [talk.ask(command) for command, _, _ in edit.ask] == [row[1] for row in edit.ask], edit.name
    finally:
        talk.kill()
