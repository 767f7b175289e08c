"""A compiler of the project's own is not run before the user said yes to it, which is asked once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import EDITS, Project, Talk, build_project
from terminal import Terminal

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

BODY = next(edit for edit in EDITS if edit.name == "body")
GREETING = next(edit for edit in EDITS if edit.name == "new string")
QUESTION = r"Run them, now and from now on\? \(y or n\) "
SHELL = (sys.executable, "-m", "ipbp.cli.main")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Its compilation database names a compiler in the project, which writes down that it was run."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = build_project(tmp_path / "project", "gcc", ["-O0"])
    compiler = made.folder / "our cc"
    compiler.write_text('#!/bin/sh\necho run >> "$(dirname "$0")/runs"\nexec gcc "$@"\n')
    compiler.chmod(0o755)
    rows = json.loads((made.folder / "compile_commands.json").read_text())
    for row in rows:
        row["arguments"][0] = "./our cc"
    (made.folder / "compile_commands.json").write_text(json.dumps(rows))
    made.edit(BODY)
    return made


@pytest.fixture
def talk(project: Project) -> Iterator[Talk]:
    program = Talk(project.program)
    yield program
    program.kill()


def was_run(project: Project) -> bool:
    return (project.folder / "runs").exists()


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_debugger_asks_once(debugger: str, project: Project, talk: Talk) -> None:
    pid = talk.process.pid
    if debugger == "gdb":
        words = [find_debugger("gdb"), "-nx", "-q", "-ex", load_line("gdb"), "-p", str(pid)]
    else:
        words = [find_debugger("lldb"), "--no-lldbinit", "-O", load_line("lldb"), "-p", str(pid)]
    with Terminal(words, project.folder) as terminal:
        terminal.wait_for(r"db\) $")
        terminal.type("hotpatch")
        assert "the compiler ./our cc" in terminal.wait_for(QUESTION)
        terminal.type("n")
        terminal.wait_for("agreement-declined")
        terminal.wait_for(r"db\) $")
        assert not was_run(project)
        terminal.type("hotpatch")
        terminal.wait_for(QUESTION)
        terminal.press_ctrl_c()
        terminal.wait_for("agreement-declined|interrupted")
        terminal.wait_for(r"db\) $")
        assert not was_run(project)
        terminal.type("hotpatch")
        terminal.wait_for(QUESTION)
        terminal.type("y")
        terminal.wait_for("patched 1 function")
        terminal.wait_for(r"db\) $")
        assert was_run(project)
        project.edit(GREETING)
        terminal.type("hotpatch")
        shown = terminal.wait_for("patched 1 function")
        assert not re.search(QUESTION, shown)
        terminal.wait_for(r"db\) $")
        terminal.type("detach")
        terminal.wait_for("detached")
        assert "Traceback" not in terminal.screen
    assert talk.ask("body 5") == "1005"


def test_a_front_end_is_told_what_to_type(project: Project, talk: Talk, gdb: str) -> None:
    lines = [f"attach {talk.process.pid}", load_line("gdb"), "hotpatch"]
    options = [word for line in lines for word in ("-ex", line)]
    with Terminal([gdb, "-nx", "-q", "-i=mi", *options], project.folder) as terminal:
        terminal.wait_for(r"ipbp trust [0-9a-f]{64}")
        assert not re.search(QUESTION, terminal.screen)
    assert not was_run(project)


def test_a_shell_asks_once(project: Project, talk: Talk) -> None:
    apply = [*SHELL, "apply", "--pid", talk.process.pid]
    for typed, said in (("n", "agreement-declined"), ("yes", "patched 1 function")):
        with Terminal(apply, project.folder) as terminal:
            terminal.wait_for(QUESTION)
            assert not was_run(project)
            terminal.type(typed)
            terminal.wait_for(said)
            terminal.wait_for_end()
    project.edit(GREETING)
    with Terminal(apply, project.folder) as terminal:
        assert not re.search(QUESTION, terminal.wait_for("patched 1 function"))
        terminal.wait_for_end()
    assert talk.ask("body 5") == "1005"


def test_without_a_terminal_yes_and_trust_agree(project: Project, talk: Talk) -> None:
    apply = [*SHELL, "apply", "--pid", str(talk.process.pid)]
    done = run(*apply)
    hash = re.findall(r"ipbp trust ([0-9a-f]{64})", done.stderr)[0]
    assert not was_run(project)
    run(*SHELL, "trust", hash)
    assert hash in run(*SHELL, "trust").stdout
    run(*SHELL, "trust", "--forget", hash)
    assert run(*SHELL, "trust").stdout == ""
    assert "agreement-needed" in run(*apply).stderr
    assert not was_run(project)
    assert "patched 1 function" in run(*apply, "--yes").stdout
    assert "./our cc" in run(*SHELL, "trust").stdout
    assert talk.ask("body 5") == "1005"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False)
