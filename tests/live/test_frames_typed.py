"""Crashes, fixed and continued by a person at a terminal: what is typed, and what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from answerer import Answerer
from scenario import Edit
from terminal import Terminal
from test_frames import ADD, CHECKED, FIRST, IN_EACH_LANGUAGE

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

# lldb says behind its prompt what it does not like about gcc's debug information.
PROMPT = {"gdb": r"\(gdb\) $", "lldb": r"\(lldb\) (error: .* DW_TAG_.*\n)*$"}
OPTIONS = {"gdb": ("-nx", "-q"), "lldb": ("--no-lldbinit",)}
QUIET = {"gdb": ("set confirm off", "set style enabled off"), "lldb": ("settings set use-color false",)}


@contextmanager
def typed_to(debugger: str, project: Answerer) -> Iterator[Terminal]:
    """The debugger at its prompt, with the program and the plugin loaded."""
    words = [find_debugger(debugger), *OPTIONS[debugger], str(project.program)]
    with Terminal(words, project.folder) as terminal:
        for line in (load_line(debugger), *QUIET[debugger]):
            terminal.wait_for(PROMPT[debugger])
            terminal.type(line)
        terminal.wait_for(PROMPT[debugger])
        yield terminal


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
@pytest.mark.parametrize(
    ("project", "word", "edit", "answer"),
    [("c", "first", FIRST, "21"), ("c++", "add", ADD, "10.5")],
    indirect=["project"],
)
def test_a_crash_is_fixed_and_continued(debugger: str, project: Answerer, word: str, edit: Edit, answer: str) -> None:
    with typed_to(debugger, project) as terminal:
        terminal.type("run")
        terminal.type(word)  # for the program
        terminal.wait_for("SIGSEGV")
        terminal.wait_for(PROMPT[debugger])
        project.edit(edit)
        terminal.type("hotpatch")
        shown = terminal.wait_for("begins again in the new code")
        assert re.search(rf"patched 1 function in {project.source.name}: .*{word}", shown), shown
        assert "`hotpatch --frame remap`" in shown
        terminal.wait_for(PROMPT[debugger])
        terminal.type("hotpatch --frame remap")
        terminal.wait_for(rf"'.*{word}.*' goes on in the new code, at {project.source.name}:\d+")
        terminal.wait_for(PROMPT[debugger])
        terminal.type("continue")
        terminal.wait_for(rf"\b{answer}\b")


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
@IN_EACH_LANGUAGE
def test_what_failed_in_a_callee_begins_again_further_out(debugger: str, project: Answerer) -> None:
    with typed_to(debugger, project) as terminal:
        if project.language == "rust":
            terminal.type("break rust_panic" if debugger == "gdb" else "breakpoint set --name rust_panic")
            terminal.wait_for(PROMPT[debugger])
        terminal.type("run")
        terminal.type("checked")  # for the program
        terminal.wait_for("Breakpoint 1, |stop reason = breakpoint" if project.language == "rust" else "SIGSEGV")
        terminal.wait_for(PROMPT[debugger])
        go_up_to(terminal, f"{project.scope}checked", PROMPT[debugger])
        project.replace(*CHECKED)
        terminal.type("hotpatch --frame restart")
        said = terminal.wait_for(r"select frame 0")
        assert re.search(r"dropped \((shop::)?require\b|dropped \(.*rust_panic.* more\)", said), said
        terminal.wait_for(PROMPT[debugger])
        terminal.type("hotpatch --frame restart --unwind")
        terminal.wait_for("checked.*' begins again in the new code.*; dropped: .*(require|more)")
        terminal.wait_for(PROMPT[debugger])
        terminal.type("continue")
        terminal.wait_for(r"\b14\b")
        terminal.type("plain")
        terminal.wait_for(r"\b41\b")


def go_up_to(terminal: Terminal, function: str, prompt: str) -> None:
    for _ in range(20):
        terminal.type("up")
        if re.search(rf"\b{function}\b", terminal.wait_for(prompt)):
            return
    raise AssertionError(f"no frame of {function}: {terminal.screen}")
