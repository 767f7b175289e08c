"""C++ is patched while it runs: what many objects define, what is thrown, and what is virtual."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from parlour import BEFORE, REFUSED, STEPS, build_parlour, make
from scenario import Project, Talk
from sessions import Outcome, Session, debug_with

from ipbp.cli.debuggers import find_debugger

pytestmark = [pytest.mark.live, pytest.mark.compiles, pytest.mark.timeout(900)]

COMPILERS = ("g++", "clang++-19", "clang++-19 -stdlib=libc++")
WITHOUT = "-fno-exceptions -fno-rtti"  # of the units that throw nothing and catch nothing
Run = tuple[str, str, str, str]
_EVERY: list[Run] = [
    (debugger, compiler, level, WITHOUT if (level == "-O2") == (debugger == "gdb") else "")
    for debugger, compiler, level in product(("gdb", "lldb"), COMPILERS, ("-O0", "-O2"))
]
_SLICE: list[Run] = [("gdb", "g++", "-O2", WITHOUT), ("lldb", "g++", "-O0", WITHOUT)]
RUNS = [row if row in _SLICE else pytest.param(row, marks=pytest.mark.slow) for row in _EVERY]


def name_of(run: Run) -> str:
    debugger, compiler, level, calm = run
    return f"{debugger} {compiler} {level}{' without exceptions' if calm else ''}"


@pytest.fixture(params=RUNS, ids=name_of)
def session(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Session, Talk, Project]]:
    monkeypatch.setattr("debuggers.PATIENCE", 300.0)  # an edit of a header compiles most of the program
    debugger, compiler, level, calm = request.param
    name, *library = compiler.split()
    project = build_parlour(tmp_path / "parlour", level, *library, compiler=name, link=library, calm=calm.split())
    talk = Talk(project.program)
    with debug_with(debugger, find_debugger(debugger)) as opened:
        opened.attach(talk.process.pid)
        opened.resume()
        yield opened, talk, project
    talk.kill()


def test_edits_of_a_running_program_one_after_the_other(session: tuple[Session, Talk, Project]) -> None:
    debugger, talk, project = session
    assert [(line, talk.ask(line)) for line, _ in BEFORE] == list(BEFORE)
    for step in STEPS:
        make(step, project.folder)
        outcome = debugger.call("apply")
        assert outcome["outcome"] == "patched", f"{step.name}: {outcome}"
        assert [(line, talk.ask(line)) for line, _ in step.ask] == list(step.ask), step.name
        assert last_parts(outcome) >= step.functions, (step.name, outcome["functions"])
        entries = [row["entry"] for row in outcome["functions"]]
        assert len(set(entries)) == len(entries), "one jump for each entry"
    assert talk.ask("firm 1") == "42"
    assert debugger.call("apply")["outcome"] == "unchanged"
    for step in REFUSED:
        texts = {name: (project.folder / name).read_text() for name in step.replace}
        make(step, project.folder)
        outcome = debugger.call("apply")
        assert outcome["outcome"] == "refused", (step.name, outcome)
        assert {row["code"] for row in outcome["refusals"]} == {"layout-changed"}, (step.name, outcome)
        assert {row["symbol"] for row in outcome["refusals"]} == step.functions, (step.name, outcome)
        assert [(line, talk.ask(line)) for line, _ in step.ask] == list(step.ask), step.name
        for name, text in texts.items():
            (project.folder / name).write_text(text)
    outcome = debugger.call("undo 1")
    assert outcome["outcome"] == "undone", outcome
    assert talk.ask("caught 4") == "ioh int 4"
    assert talk.ask("area 0") == "16 shape"
    assert talk.ask("turns") == "on"
    assert talk.close() == 0


def last_parts(outcome: Outcome) -> set[str]:
    """The names of the functions as they stand in the source."""
    return {last_part(row["linkage"]) for row in outcome["functions"]}


def last_part(mangled: str) -> str:
    """The last <source-name> before the parameters of an Itanium name (5.1): a number and as many letters."""
    at, name = 2, ""
    while match := re.compile(r"[NKZ]*(\d+)").match(mangled, at):
        at = match.end() + int(match[1])
        name = mangled[match.end() : at]
        if mangled[at : at + 2] == "iE":  # the parameter of the function around a local class
            at += 2
        while mangled[at : at + 3] == "IiE":
            at += 3
    return name
