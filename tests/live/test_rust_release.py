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

pytestmark = [pytest.mark.live, pytest.mark.compiles]
GRAIN, COARSE, FINE, STORE = "grain/src/lib.rs", "mill/src/coarse.rs", "mill/src/fine.rs", "mill/src/store.rs"
MAIN = "mill/src/main.rs"
QUESTIONS = (
    "coarse hello world",
    "fine hello world",
    "both some text here",
    "label abc",
    "rye 4",
    "oats 4",
    "scale 4",
    "more 4",
    "fall 1",
    "fall 7",
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
LINES = _edit("lines that move", STORE, "use std::sync::Mutex;", "\n\nuse std::sync::Mutex;")
LOOP = _edit("what main has inlined", MAIN, 'String::from("?")', 'String::from("what?")')
ANOTHER_FACTOR = _edit("a factor of another caller", MAIN, "    weight + 1\n", "    weight + scale(weight, 100)\n")
SCALE = _edit("a function alone", MAIN, "+ factor / 2", "+ factor / 2 + 1000")
APART = _edit("one of two that are folded", GRAIN, OATS, OATS.replace("12345", "54321"))


@dataclass
class Mill:
    """A running program, and the same workspace once more, for cargo."""

    project: CargoProject
    fresh: Path
    talk: Talk
    words: tuple[str, ...] = ()
    questions: tuple[str, ...] = QUESTIONS

    def edit(self, *edits: Edit) -> None:
        for folder in (self.project.folder, self.fresh):
            edit_sources(folder, edits)

    def apply(self, debugger: str) -> Outcome:
        outcome = ipbp("apply", self.talk.process.pid, debugger, *self.words)
        assert outcome["outcome"] == "patched", json.dumps(outcome, indent=1)
        return outcome

    def answers(self) -> list[str]:
        return [self.talk.ask(question) for question in self.questions]

    def right_answers(self) -> list[str]:
        CargoProject(self.fresh, self.project.program, {}).cargo("build", "--release")
        fresh = Talk(self.fresh / "target/release/mill")
        found = [fresh.ask(question) for question in self.questions]
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
        mill.edit(LINES)
        outcome = ipbp("apply", mill.talk.process.pid, "gdb")
        assert outcome["outcome"] == "unchanged", outcome["text"]
        assert "2 functions in" in outcome["text"], "their panics name other lines"
        found = go_through(mill, "gdb", COPIES, INLINED, GENERIC, CALLER, CLOSURE, CAUGHT, COPIES_AGAIN, ADDED, LOOP)
        assert any("may still be in the old 'mill::main'" in note for note in found[-1]["notes"])
        assert names(found[0]) == ["grain::grind", "grain::grind"], "both copies and nothing else"
        assert all(row["linkage"].startswith("_ZN5grain5grind17h") for row in found[0]["functions"])
        assert "grain::grind (x2)" in found[0]["text"]
        assert {"mill::fine::mill", "mill::coarse::mill"} <= set(names(found[1])), "who inlined it is patched"
    finally:
        mill.talk.kill()


def test_functions_that_llvm_made_one_are_not_patched_apart(tmp_path: Path) -> None:
    mill = start(tmp_path, "debug = true")
    try:
        mill.edit(APART)
        outcome = ipbp("apply", mill.talk.process.pid, "gdb")
        assert [row["code"] for row in outcome["refusals"]] == ["entry-shared"]
        assert "'grain::oats' and 'grain::rye' are one function" in outcome["text"]
        mill.edit(_edit("the other one, too", GRAIN, "12345", "54321"))
        mill.apply("gdb")
        assert mill.answers() == mill.right_answers()
    finally:
        mill.talk.kill()


def test_a_loop_that_goes_on_does_not_call_what_takes_other_arguments(tmp_path: Path) -> None:
    mill = start(tmp_path, "debug = true")
    try:
        before = mill.answers()
        mill.edit(ANOTHER_FACTOR)
        outcome = ipbp("apply", mill.talk.process.pid, "gdb")
        assert {row["code"] for row in outcome["refusals"]} == {"caller-running"}, outcome["text"]
        assert "which calls 'mill::scale'" in outcome["text"]
        assert mill.answers() == before
        mill.edit(_edit("and back", MAIN, "    weight + scale(weight, 100)\n", "    weight + 1\n"), SCALE)
        mill.apply("gdb")
        assert mill.answers() == mill.right_answers()
    finally:
        mill.talk.kill()


V0 = '[build]\nrustflags = ["-Csymbol-mangling-version=v0"]\n'
V5 = '[build]\nrustflags = ["-Cdwarf-version=5"]\n'
PROFILES = {
    "v0 names, many units": ("debug = true\ncodegen-units = 256", V0),
    "opt-level 1, packed debug information": ('debug = true\nopt-level = 1\nsplit-debuginfo = "packed"', ""),
    "opt-level 2, one unit": ("debug = true\nopt-level = 2\ncodegen-units = 1", ""),
    "unpacked debug information": ('debug = true\nsplit-debuginfo = "unpacked"', ""),
    "unpacked debug information of version 5": ('debug = true\nsplit-debuginfo = "unpacked"', V5),
    "panics that abort": ('debug = true\npanic = "abort"', ""),
    "stripped debug information": ('debug = true\nstrip = "debuginfo"', ""),
    "opt-level s": ('debug = true\nopt-level = "s"', ""),
    "opt-level z, checks": ('debug = true\nopt-level = "z"\ndebug-assertions = true', ""),
    "no debug information": ("debug = false", ""),
    "incremental": ("debug = true\nincremental = true", ""),
}
IN_GDB = ("unpacked debug information", "panics that abort", "stripped debug information", "opt-level 2, one unit")
FIRST, *MORE = PROFILES


@pytest.mark.parametrize("profile", [FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_every_profile_is_patched(tmp_path: Path, profile: str) -> None:
    mill = start(tmp_path, *PROFILES[profile])
    if profile in ("no debug information", "stripped debug information"):
        mill.words = ("--allow-layout", "all")
    if profile == "panics that abort":
        mill.questions = QUESTIONS[:-1]
    try:
        go_through(mill, "gdb" if profile in IN_GDB else "lldb", COPIES, GENERIC, COPIES_AGAIN)
    finally:
        mill.talk.kill()


def test_code_of_several_crates_in_one_is_refused_by_the_settings_name(tmp_path: Path) -> None:
    mill = start(tmp_path, 'debug = true\nlto = "thin"')
    try:
        mill.edit(COPIES)
        outcome = ipbp("apply", mill.talk.process.pid, "gdb")
        assert [row["code"] for row in outcome["refusals"]] == ["lto"]
        assert 'lto = "thin"' in outcome["text"]
    finally:
        mill.talk.kill()


@pytest.mark.parametrize("debug", ['"line-tables-only"', '"limited"'])
def test_a_program_that_does_not_describe_its_types_is_refused(tmp_path: Path, debug: str) -> None:
    mill = start(tmp_path, f"debug = {debug}")
    try:
        mill.edit(COPIES)
        outcome = ipbp("apply", mill.talk.process.pid, "gdb")
        assert [row["code"] for row in outcome["refusals"]] == ["no-type-information"]
    finally:
        mill.talk.kill()
