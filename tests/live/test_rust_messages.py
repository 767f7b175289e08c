"""What rustc says of an edit that it does not accept, as a person at a debugger's prompt sees it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cargo_project import CargoProject, build_cargo_project
from scenario import Talk
from terminal import Terminal

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.path import load_line

pytestmark = [pytest.mark.live, pytest.mark.compiles]
LIBRARY = "base/src/counted.rs", "items * 10", "itemz * 10", "items * 11", "bill 4", "44 for [4, 4]"
PROGRAM = "chain/src/first.rs", "short(name))", "short(nam))", "short(&name[1..]))", "greet joe", "hello joe (o)"
"""Each: file, what is there, an error, an edit; a question to the program, and its new answer."""


@pytest.fixture
def project(tmp_path: Path) -> CargoProject:
    return build_cargo_project(tmp_path / "chain", workspace="chain")


@pytest.fixture
def talk(project: CargoProject) -> Iterator[Talk]:
    running = Talk(project.program)
    yield running
    running.kill()


@pytest.mark.parametrize(("debugger", "edit"), [("gdb", LIBRARY), ("lldb", PROGRAM)])
def test_an_error_is_in_colour_in_a_terminal(
    debugger: str, edit: tuple[str, ...], project: CargoProject, talk: Talk
) -> None:
    file, old, wrong, right, question, answer = edit
    path = project.folder / file
    good = path.read_text()
    assert good.count(old) == 1
    path.write_text(good.replace(old, wrong))
    words = {
        "gdb": ["-nx", "-q", "-iex", "set debuginfod enabled off", "-ex", load_line("gdb")],
        "lldb": ["--no-lldbinit", "-O", load_line("lldb")],
    }[debugger]
    with Terminal([find_debugger(debugger), *words, "-p", str(talk.process.pid)], project.folder) as terminal:
        terminal.wait_for(r"db\) $")
        terminal.type("hotpatch")
        terminal.wait_for(r"\[compile-failed\]")
        terminal.wait_for(r"db\) $")
        said = message(project)
        assert "\x1b[91m" in said, "bright red"
        assert said in terminal.raw.replace("\r", "")
        # That build took away what cargo had made of the crate. What is right is patched all the same.
        path.write_text(good.replace(old, right))
        terminal.type("hotpatch")
        terminal.wait_for(r"patched \d+ function")
        terminal.wait_for(r"db\) $")
        terminal.type("detach")
        terminal.wait_for(r"db\) $|detached")
    assert talk.ask(question) == answer


def message(project: CargoProject) -> str:
    """What cargo's own build shows of the error in a terminal with colours."""
    words = ["cargo", "build", "--offline", "--color", "always"]
    done = subprocess.run(words, cwd=project.folder, capture_output=True, text=True)
    assert done.returncode != 0
    return done.stderr[done.stderr.index("\x1b[1m\x1b[91merror[E0425]") :].split("\n\n")[0]
