"""Rust as it is shipped: optimised programs, patched while they run, answer as freshly built ones would.

Each program goes through several edits, one on top of the other; a copy of the workspace gets the same edits and is
built by cargo to say what is right.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from cargo_project import CargoProject, build_cargo_project
from scenario import Edit, Talk, edit_sources
from sessions import Outcome, ipbp

pytestmark = pytest.mark.live
GRAIN, COARSE, FINE, STORE = "grain/src/lib.rs", "mill/src/coarse.rs", "mill/src/fine.rs", "mill/src/store.rs"
QUESTIONS = (
    "coarse hello world",
    "fine hello world",
    "both some text here",
    "label abc",
    "rye 4",
    "oats 4",
    "fall 7",
    "fall 1",
)


def _edit(name: str, file: str, old: str, new: str) -> Edit:
    return Edit(name, file, [(old, new)], [], [])


OATS = "pub fn oats(weight: u64) -> u64 {\n    weight.wrapping_mul(2654435761) ^ 12345"
COPIES = _edit("a function with copies", GRAIN, "seed.wrapping_mul(3)) + 1", "seed.wrapping_mul(3)) + 2")
COPIES_AGAIN = _edit("the copies again", GRAIN, "seed.wrapping_mul(5)) ^ 2", "seed.wrapping_mul(5)) ^ 3")
INLINED = _edit("a function that was inlined", GRAIN, "    weight + 1\n", "    weight + 10\n")
GENERIC = _edit("a generic function", GRAIN, '"<{value}>"', '"<{value}|{times}>"')
CALLER = _edit("a caller", FINE, "text.chars().rev().collect()", "text.chars().rev().skip(1).collect()")
CLOSURE = _edit("a closure", COARSE, "grain::grind(word, first)", "grain::grind(word, first + 3)")
CAUGHT = _edit("code that unwinds", STORE, "rows[number]", "rows[number] * 2")
ADDED = _edit(
    "one more user of the copies", STORE, "let number: usize", "let _ = grain::grind(text, 4);\n    let number: usize"
)
APART = _edit("one of two that are folded", GRAIN, OATS, OATS.replace("12345", "54321"))


@dataclass
class Mill:
    """A running program, and the same workspace once more, for cargo."""

    project: CargoProject
    fresh: Path
    talk: Talk

    def edit(self, *edits: Edit) -> None:
        for folder in (self.project.folder, self.fresh):
            edit_sources(folder, edits)

    def apply(self, debugger: str) -> Outcome:
        outcome = ipbp("apply", self.talk.process.pid, debugger)
        assert outcome["outcome"] == "patched", json.dumps(outcome, indent=1)
        return outcome

    def answers(self) -> list[str]:
        return [self.talk.ask(question) for question in QUESTIONS]

    def right_answers(self) -> list[str]:
        CargoProject(self.fresh, self.project.program, {}).cargo("build", "--release")
        fresh = Talk(self.fresh / "target/release/mill")
        found = [fresh.ask(question) for question in QUESTIONS]
        assert fresh.close() == 0
        return found


def start(folder: Path, profile: str, config: str = "") -> Mill:
    settings = f"\n[profile.release]\n{profile}\n"
    project = build_cargo_project(folder / "mill", "--release", workspace="mill", settings=settings, config=config)
    shutil.copytree(project.folder, folder / "fresh")
    return Mill(project, folder / "fresh", Talk(project.program))


def go_through(mill: Mill, debugger: str, *edits: Edit) -> list[Outcome]:
    """Make the edits one after the other in the running program."""
    before = mill.answers()
    assert mill.talk.ask("store x").endswith(" of 1")
    outcomes = []
    for edit in edits:
        mill.edit(edit)
        outcomes.append(mill.apply(debugger))
        assert mill.answers() == mill.right_answers(), edit.name
        assert mill.talk.ask("store x").endswith(" of 1"), "the shelf keeps what it holds"
    for _ in edits:
        assert ipbp("undo", mill.talk.process.pid, debugger)["outcome"] == "undone"
    assert mill.answers() == before
    assert mill.talk.close() == 0
    return outcomes


def names(outcome: Outcome) -> list[str]:
    return [row["name"] for row in outcome["functions"]]


def test_a_release_program_goes_through_many_edits_in_gdb(tmp_path: Path) -> None:
    mill = start(tmp_path, "debug = true")
    try:
        found = go_through(mill, "gdb", COPIES, INLINED, GENERIC, CALLER, CLOSURE, CAUGHT, COPIES_AGAIN, ADDED)
        assert len(names(found[0])) == 2, "both copies and nothing else"
        assert all("grind" in name for name in names(found[0]))
        assert not any("grind" in name for name in names(found[1])), "who inlined it is patched"
    finally:
        mill.talk.kill()


def test_functions_that_llvm_made_one_are_not_patched_apart(tmp_path: Path) -> None:
    mill = start(tmp_path, "debug = true")
    try:
        mill.edit(APART)
        outcome = ipbp("apply", mill.talk.process.pid, "gdb")
        assert [row["code"] for row in outcome["refusals"]] == ["entry-shared"]
        mill.edit(_edit("the other one, too", GRAIN, "12345", "54321"))
        mill.apply("gdb")
        assert mill.answers() == mill.right_answers()
    finally:
        mill.talk.kill()


@pytest.mark.parametrize("profile", ["opt-level = 2\ndebug = true"])
def test_a_release_program_is_patched_in_lldb(tmp_path: Path, profile: str) -> None:
    mill = start(tmp_path, profile)
    try:
        go_through(mill, "lldb", COPIES, GENERIC, COPIES_AGAIN)
    finally:
        mill.talk.kill()
