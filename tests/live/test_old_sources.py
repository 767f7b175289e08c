"""Old code is shown with the source that it was compiled from, and said to be old: what a person at a terminal sees."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cargo_project import build_cargo_project
from sessions import build_one
from terminal import Terminal

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.path import load_line

pytestmark = pytest.mark.live

OPTIONS = {"gdb": ("-nx", "-q"), "lldb": ("--no-lldbinit",)}
QUIET = {"gdb": ("set confirm off", "set style enabled off"), "lldb": ("settings set use-color false",)}


@dataclass(frozen=True)
class Case:
    """A program of one language. `line` of `function` is edited, and one more line comes before it; `caller`: a line of
    the function that calls it, which stays as it is. `top`: a line before all functions, behind which two come. `word`
    makes the program call it; `first` is the first line of the new one. `certain`: its compiler writes checksums."""

    build: Callable[[Path], tuple[Path, Path]]
    source: str
    function: str
    line: str
    edited: str
    caller: str
    top: str
    word: str
    first: str
    certain: bool = False


def frames(folder: Path) -> tuple[Path, Path]:
    project = build_one(folder, "frames", "-O0")
    return project.folder, project.program


def till(folder: Path) -> tuple[Path, Path]:
    project = build_one(folder, "till", "-O0", compiler=clang("clang++"), suffix="cpp")
    return project.folder, project.program


def ledger(folder: Path) -> tuple[Path, Path]:
    project = build_cargo_project(folder, workspace="ledger")
    return project.folder, project.program


def frames_by_clang(folder: Path) -> tuple[Path, Path]:
    project = build_one(folder, "frames", "-O0", compiler=clang("clang"))
    return project.folder, project.program


def clang(name: str) -> str:
    return next(found for found in (name, *(f"{name}-{n}" for n in range(25, 13, -1))) if shutil.which(found))


CASES = {
    "c": Case(
        frames,
        "frames.c",
        "plain",
        "    int more = twice + 1;",
        "    int extra = 7;\n    int more = twice + extra;",
        "            answer = plain(20);",
        "#include <assert.h>",
        "plain",
        "    int twice = value + value;",
    ),
    "c++": Case(
        till,
        "till.cpp",
        "largest",
        "    T best = *fallback;",
        "    const T least = 9;\n    T best = fallback ? *fallback : least;",
        "            std::cout << largest<int>({1, 5, 3}, nullptr) << std::endl;",
        "#include <iostream>",
        "largest",
        "    const T least = 9;",
    ),
    "rust": Case(
        ledger,
        "src/main.rs",
        "plain",
        "    let more = twice + 1;",
        "    let extra = 7;\n    let more = twice + extra;",
        '        "plain" => plain(20),',
        "use std::io::BufRead;",
        "plain",
        "    let twice = value + value;",
    ),
}
CASES["c by clang"] = replace(CASES["c"], build=frames_by_clang, certain=True)
BOTH = [
    ("gdb", "c by clang"),
    ("gdb", "c"),
    ("lldb", "c"),
    ("gdb", "rust"),
    ("lldb", "c++"),
    pytest.param("gdb", "c++", marks=pytest.mark.slow),
    pytest.param("lldb", "rust", marks=pytest.mark.slow),
]


class Typed:
    """A debugger at a terminal with the program of a case, its source under git unless `kept` is false."""

    def __init__(self, terminal: Terminal, debugger: str, source: Path) -> None:
        self.terminal = terminal
        self.debugger = debugger
        self.source = source
        self._prompt = rf"\({debugger}\) $"

    def tell(self, gdb: str, lldb: str = "") -> str:
        self.terminal.type(lldb if lldb and self.debugger == "lldb" else gdb)
        return self.terminal.wait_for(self._prompt)

    def stop(self, line: str, word: str) -> str:
        """What is shown when the program, let go by `line`, has stopped after it got `word`."""
        self.terminal.type(line)
        self.terminal.wait_for(r"Starting program|launched|Continuing|resuming")
        self.terminal.type(word)
        return self.wait_for_stop()

    def wait_for_stop(self, answer: str = r"\Z.") -> str:
        """What is shown until the program has stopped, or, without that, until it has said `answer`.

        lldb shows its prompt before it tells of the stop now and then, and not again.
        """
        prompt, early = self._prompt, r"\(lldb\) Process \d+ stopped\n[\s\S]*?\n-> \d+[^\n]*\n"
        shown = self.terminal.wait_for(rf"{answer}|(Breakpoint \d|stop reason|SIGSEGV)[\s\S]*{prompt}|{early}")
        if re.search(rf"{early}\Z", shown):
            while self.terminal.read(1):
                continue
            shown += self.terminal.wait_for(r"\Z")
        return shown

    def break_at(self, line: int) -> None:
        self.tell(f"break {self.source.name}:{line}", f"breakpoint set --file {self.source.name} --line {line}")

    def edit(self, case: Case) -> None:
        text = self.source.read_text()
        for before, after in ((case.line, case.edited), (case.top, f"{case.top}\n// one\n// two")):
            assert text.count(before) == 1
            text = text.replace(before, after)
        self.source.write_text(text)

    def number(self, line: str) -> int:
        return self.source.read_text().splitlines().index(line) + 1

    def current(self, said: str) -> tuple[int, str]:
        """The line that is shown as the current one."""
        arrow = "-> " if self.debugger == "lldb" else ""
        found = re.search(rf"^{arrow}(\d+) *\t(.*)$", said, re.M)
        assert found is not None, said
        return int(found[1]), found[2]


@contextmanager
def typed_to(debugger: str, case: Case, folder: Path, *, git: bool = True) -> Iterator[Typed]:
    root, program = case.build(folder)
    if git:
        commit = ("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "as built")
        for words in (("init", "-q"), ("add", case.source), commit):
            subprocess.run(["git", *words], cwd=root, check=True)
    words = [find_debugger(debugger), *OPTIONS[debugger], str(program)]
    with Terminal(words, root) as terminal:
        typed = Typed(terminal, debugger, root / case.source)
        terminal.wait_for(rf"\({debugger}\) $")
        for line in (load_line(debugger), *QUIET[debugger]):
            typed.tell(line)
        yield typed


@pytest.mark.parametrize(("debugger", "language"), BOTH)
def test_old_code_is_shown_as_it_was(debugger: str, language: str, tmp_path: Path) -> None:
    case = CASES[language]
    with typed_to(debugger, case, tmp_path / "project") as typed:
        line, caller = typed.number(case.line), typed.number(case.caller)
        typed.break_at(line)
        was_built = typed.source.read_text().splitlines()
        assert typed.current(typed.stop("run", case.word)) == (line, case.line)
        typed.edit(case)
        assert "patched" in typed.tell("hotpatch")
        origin = "" if case.certain else r" \(as git has it\)"
        file = re.escape(typed.source.name)
        was = {
            "gdb": rf"\[old code of {file}, as it was before patch 1{origin}\]",
            "lldb": rf"at \[old code, before patch 1{origin}\] {file}:",
        }[debugger]
        moved = {
            "gdb": rf"\[{file}, as it was before patch 1{origin}\]",
            "lldb": rf"at \[before patch 1{origin}\] {file}:",
        }[debugger]
        shown = typed.tell("frame", "frame select 0")
        assert typed.current(shown) == (line, case.line), shown
        assert re.search(was, shown), shown
        if language == "c++":  # the next line crashes in the old code
            typed.tell("up")
        else:
            shown = typed.tell("next")
            number, text = typed.current(shown)
            assert number >= line
            assert text == was_built[number - 1]
            assert re.search(was, shown), shown
            typed.tell("up")
        typed.tell("down")
        shown = typed.tell("up")
        # The caller is as it was; its line has moved in the file, not in what it was compiled from.
        assert typed.current(shown) == (caller, case.caller), shown
        assert re.search(moved, shown), shown
        shown = typed.tell("list", f"source list --line {caller}")
        assert f"\t{case.caller}\n" in shown
        assert f"\t{was_built[caller + 1]}\n" in shown
        assert debugger == "lldb" or re.search(moved, shown), shown


@pytest.mark.parametrize(("debugger", "language"), BOTH)
def test_new_code_is_shown_as_it_is_and_after_an_undo_as_it_was(debugger: str, language: str, tmp_path: Path) -> None:
    case = CASES[language]
    with typed_to(debugger, case, tmp_path / "project") as typed:
        line, was_built = typed.number(case.line), typed.source.read_text().splitlines()
        typed.tell("break ledger::main" if language == "rust" else "break main", "breakpoint set --name main")
        typed.terminal.type("run")
        typed.wait_for_stop()
        typed.edit(case)
        assert "patched" in typed.tell("hotpatch")
        typed.tell("delete", "breakpoint delete --force")
        where = f"ledger::{case.function}" if language == "rust" else case.function
        typed.tell(f"break {where}", f"breakpoint set --name {case.function}")
        shown = typed.stop("continue", case.word)
        number, text = typed.current(shown)
        assert number >= typed.number(case.first)
        assert text == typed.source.read_text().splitlines()[number - 1] != was_built[number - 1], shown
        assert "before patch" not in shown
        typed.tell("delete", "breakpoint delete --force")
        assert "undone" in typed.tell("hotpatch undo")
        # The file has the text of the patch that was undone; what runs now has not.
        typed.tell(f"break {where}", f"breakpoint set --name {case.function}")
        shown = typed.stop("continue", case.word)
        assert re.search(r"before patch 1", shown), shown
        assert case.edited.splitlines()[1] not in shown
        number, text = typed.current(shown)
        assert text == was_built[number - 1] != typed.source.read_text().splitlines()[number - 1], shown
        shown = typed.tell(f"list {line}", f"source list --line {line}")
        assert f"\t{case.line}\n" in shown
