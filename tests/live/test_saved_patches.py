"""A patch that was saved is applied to another process of the build, where there are neither compiler nor sources."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scenario import EDITS, Edit, Project, Talk, build_project
from sessions import Outcome, Session, code_of, debug_with, debugged

from ipbp.cli.debuggers import find_debugger

pytestmark = pytest.mark.live

BY_NAME = {edit.name: edit for edit in EDITS}
FIRST = (BY_NAME["body"], BY_NAME["new string"], BY_NAME["switch table"])
SECOND = (BY_NAME["recursion"], BY_NAME["new function and new static"])


@dataclass(frozen=True)
class Elsewhere:
    """A machine that has the program alone, and three patches: of `FIRST`, and of both, which were saved, and one that
    was made of two build trees with both. `tools`: a PATH without any compiler."""

    program: Path
    first: Path
    both: Path
    built: Path
    tools: Path

    def start(self) -> Talk:
        return Talk(self.program)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, gcc: str) -> Elsewhere:
    folder = tmp_path_factory.mktemp("patches")
    project = build_project(folder / "project", gcc, ["-O2"])
    there = folder / "elsewhere"
    (there / "tools").mkdir(parents=True)
    names = (folder / f"{name}.patch" for name in ("first", "both", "built"))
    found = Elsewhere(there / "talk", *names, there / "tools")
    shutil.copy2(project.program, found.program)
    with debugged(project.program, "gdb") as (session, _talk):
        assert session.call(f"save {found.first}")["error"]["code"] == "nothing-to-save"
        save(session, project, FIRST, found.first)
        save(session, project, SECOND, found.both)
    old = shutil.move(project.folder, folder / "old")
    new = build_project(folder / "project", gcc, ["-O2"], edits=(*FIRST, *SECOND))
    words = ["build-patch", str(old), str(new.folder), "-o", str(found.built), "--json"]
    done = subprocess.run([sys.executable, "-m", "ipbp.cli.main", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for gone in (old, new.folder):
        shutil.rmtree(gone)
    return found


def save(session: Session, project: Project, edits: tuple[Edit, ...], file: Path) -> None:
    project.edit(*edits)
    assert session.call("apply")["outcome"] == "patched"
    outcome = session.call(f"save {file}")
    assert outcome["outcome"] == "ok", outcome
    assert {name for edit in edits for name in edit.functions} <= {row["name"] for row in outcome["functions"]}


def alone(elsewhere: Elsewhere, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that the machine which made the patches knew is known here."""
    monkeypatch.setenv("PATH", str(elsewhere.tools))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    assert shutil.which("gcc") is None
    assert shutil.which("cc") is None


def answers(talk: Talk, *edits: Edit, is_patched: bool) -> None:
    for edit in edits:
        for command, before, after in edit.ask:
            assert talk.ask(command) == (after if is_patched else before), edit.name


@pytest.fixture(params=["gdb", "lldb"])
def there(
    elsewhere: Elsewhere, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Session, Talk]]:
    """A fresh process of the program on that machine, in each debugger."""
    path = find_debugger(request.param)
    alone(elsewhere, tmp_path, monkeypatch)
    talk = elsewhere.start()
    try:
        with debug_with(request.param, path) as session:
            session.attach(talk.process.pid)
            session.resume()
            yield session, talk
    finally:
        talk.kill()


def test_it_is_applied_once_and_taken_back(elsewhere: Elsewhere, there: tuple[Session, Talk]) -> None:
    session, talk = there
    answers(talk, *FIRST, BY_NAME["recursion"], is_patched=False)
    assert talk.ask("uses_helper 1") == "4"
    outcome = session.call(f"load {elsewhere.both}")
    assert outcome["outcome"] == "patched", outcome
    names = {name for edit in (*FIRST, *SECOND) for name in edit.functions}
    assert names == {row["name"] for row in outcome["functions"]}
    answers(talk, *FIRST, *SECOND, is_patched=True)
    again = session.call(f"load {elsewhere.both}")
    assert again["outcome"] == "unchanged"
    assert again["notes"] == ["both.patch is applied already"]
    assert session.call("undo")["outcome"] == "undone"
    answers(talk, *FIRST, is_patched=False)
    assert session.call(f"load {elsewhere.first}")["outcome"] == "patched"
    answers(talk, *FIRST, is_patched=True)


def test_one_over_another_leaves_what_it_says(elsewhere: Elsewhere, there: tuple[Session, Talk]) -> None:
    session, talk = there
    answers(talk, BY_NAME["recursion"], is_patched=False)
    assert talk.ask("uses_helper 1") == "4"
    assert session.call(f"load {elsewhere.first}")["outcome"] == "patched"
    answers(talk, *FIRST, is_patched=True)
    outcome = session.call(f"load {elsewhere.both}")
    assert outcome["outcome"] == "patched"
    assert {name for edit in SECOND for name in edit.functions} == {row["name"] for row in outcome["functions"]}
    answers(talk, *FIRST, *SECOND, is_patched=True)
    back = session.call(f"load {elsewhere.first}")
    assert back["outcome"] == "patched"
    assert {"recursive", "uses_helper"} <= {row["name"] for row in back["functions"]}
    answers(talk, *FIRST, is_patched=True)
    answers(talk, BY_NAME["recursion"], is_patched=False)


def test_one_of_two_build_trees_is_applied_over_one_that_was_saved(
    elsewhere: Elsewhere, there: tuple[Session, Talk]
) -> None:
    session, talk = there
    answers(talk, *FIRST, BY_NAME["recursion"], is_patched=False)
    assert session.call(f"load {elsewhere.first}")["outcome"] == "patched"
    outcome = session.call(f"load {elsewhere.built}")
    assert outcome["outcome"] == "patched", outcome
    assert {name for edit in SECOND for name in edit.functions} == {row["name"] for row in outcome["functions"]}
    answers(talk, *FIRST, BY_NAME["recursion"], is_patched=True)
    assert session.call("undo 0")["outcome"] == "undone"
    assert session.call(f"load {elsewhere.built}")["outcome"] == "patched"
    answers(talk, *FIRST, BY_NAME["recursion"], is_patched=True)


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_another_build_and_a_damaged_file_are_refused(
    elsewhere: Elsewhere, gcc: str, debugger: str, tmp_path: Path
) -> None:
    other = build_project(tmp_path / "other", gcc, ["-O1"])
    cut = tmp_path / "cut.patch"
    cut.write_bytes(elsewhere.first.read_bytes()[: os.path.getsize(elsewhere.first) // 2])
    with debugged(other.program, debugger) as (session, talk):
        answers(talk, *FIRST, is_patched=False)
        before = code_of(talk.process.pid)
        refused = session.call(f"load {elsewhere.first}")
        assert [row["code"] for row in refused["refusals"]] == ["patch-other-build"]
        assert session.call(f"load {cut}")["error"]["code"] == "patch-file-malformed"
        assert session.call(f"load {tmp_path}/none.patch")["error"]["code"] == "patch-file-unreadable"
        assert code_of(talk.process.pid) == before
        answers(talk, *FIRST, is_patched=False)


@pytest.fixture
def with_debuggers_alone(elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `alone`, for commands that look for a debugger in PATH."""
    for name in ("gdb", "lldb"):
        if not (elsewhere.tools / name).exists():
            (elsewhere.tools / name).symlink_to(find_debugger(name))
    alone(elsewhere, tmp_path, monkeypatch)


@pytest.mark.usefixtures("with_debuggers_alone")
@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_processes_are_patched_from_a_shell_once(
    elsewhere: Elsewhere, debugger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = [elsewhere.start() for _ in range(3)]
    try:
        for talk in fleet:
            answers(talk, *FIRST, is_patched=False)
        first, rest = fleet[0].process.pid, ",".join(str(talk.process.pid) for talk in fleet[1:])
        which = ["--pid", str(first), "--debugger", debugger]
        assert shell("preview", elsewhere.first, *which)[1][0]["outcome"] == "planned"
        answers(fleet[0], *FIRST, is_patched=False)
        status, rows = shell("apply", elsewhere.first, *which)
        assert (status, rows[0]["outcome"]) == (0, "patched")
        status, rows = shell("apply", elsewhere.first, "--pid", f"{first},{rest}", "--debugger", debugger)
        assert (status, rows[-1]["summary"]) == (0, {"processes": 3, "unchanged": 1, "patched": 2})
        for talk in fleet:
            answers(talk, *FIRST, is_patched=True)
        status, rows = shell("apply", elsewhere.first, "--exe", elsewhere.program, "--debugger", debugger)
        assert (status, rows[-1]["outcome"]) == (0, "unchanged")
        # Whoever does not know what was done to the process finds that it is not what was built.
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "forgotten"))
        status, rows = shell("apply", elsewhere.both, *which)
        assert (status, {row["code"] for row in rows[0]["refusals"]}) == (3, {"not-the-running-code"})
        answers(fleet[0], *FIRST, is_patched=True)
    finally:
        for talk in fleet:
            talk.kill()


def test_what_is_wrong_with_the_words_is_told_before_any_process_is_looked_for(
    elsewhere: Elsewhere, tmp_path: Path
) -> None:
    status, rows = shell("apply", tmp_path / "none", "--exe", elsewhere.program)
    assert (status, rows[0]["error"]["code"]) == (1, "patch-file-unreadable")
    status, rows = shell("apply", elsewhere.first, "--exe", elsewhere.program, "--build-dir", "/")
    assert (status, rows[0]["outcome"]) == (2, "usage")
    status, rows = shell("apply", elsewhere.first, "--exe", elsewhere.program)
    assert (status, rows[0]["outcome"]) == (0, "unchanged")


def shell(verb: str, *words: str | Path) -> tuple[int, list[Outcome]]:
    """One `ipbp VERB ... --json`: its exit status and what it printed."""
    command = [sys.executable, "-m", "ipbp.cli.main", verb, *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
