"""Crashes, fixed and continued by a person at a terminal: what is typed, and what is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scenario import Project
from sessions import build_one
from terminal import Terminal
from test_frames import CHECKED, FIRST

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

PROMPT = {"gdb": r"\(gdb\) $", "lldb": r"\(lldb\) $"}
OPTIONS = {"gdb": ("-nx", "-q"), "lldb": ("--no-lldbinit",)}
QUIET = {"gdb": ("set confirm off", "set style enabled off"), "lldb": ("settings set use-color false",)}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return build_one(tmp_path / "project", "frames", "-O0")


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_crashes_are_fixed_and_continued(project: Project, debugger: str) -> None:
    words = [find_debugger(debugger), *OPTIONS[debugger], str(project.program)]
    with Terminal(words, project.folder) as terminal:
        for line in (load_line(debugger), *QUIET[debugger]):
            terminal.wait_for(PROMPT[debugger])
            terminal.type(line)
        terminal.wait_for(PROMPT[debugger])
        terminal.type("run")
        terminal.type("first")  # for the program
        terminal.wait_for("SIGSEGV")
        terminal.wait_for(PROMPT[debugger])
        project.edit(FIRST)
        terminal.type("hotpatch")
        shown = terminal.wait_for("begins again in the new code")
        assert "patched 1 function in frames.c: first" in shown
        assert "`hotpatch --frame remap`" in shown
        terminal.wait_for(PROMPT[debugger])
        terminal.type("hotpatch --frame remap")
        terminal.wait_for(r"'first' goes on in the new code, at frames.c:\d+")
        terminal.wait_for(PROMPT[debugger])
        terminal.type("continue")
        terminal.wait_for(r"\b21\b")

        terminal.type("checked")
        terminal.wait_for("SIGSEGV")
        terminal.wait_for(PROMPT[debugger])
        terminal.type("up")
        assert "checked" in terminal.wait_for(PROMPT[debugger])
        project.edit(CHECKED)
        terminal.type("hotpatch --frame restart")
        said = terminal.wait_for(r"select frame 0")
        assert re.search(r"dropped \(require\)", said)
        terminal.wait_for(PROMPT[debugger])
        terminal.type("hotpatch --frame restart --unwind")
        terminal.wait_for("'checked' begins again in the new code.*; dropped: require")
        terminal.wait_for(PROMPT[debugger])
        terminal.type("continue")
        terminal.wait_for(r"\b14\b")
        terminal.type("plain")
        terminal.wait_for(r"\b41\b")
