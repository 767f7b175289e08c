"""Rust in libraries that other programs load: a plugin of a Rust program, and a part of a C program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cargo_project import CargoProject
from scenario import Edit, Talk
from sessions import Outcome, ipbp

pytestmark = [pytest.mark.live, pytest.mark.compiles]
WORKSPACE = "plugged"
PLUGIN, SHARED = "plugin/src/lib.rs", "shared/src/lib.rs"
WORDS = Edit("words", PLUGIN, [('"{asked} {} {} {safe:?}"', '"{asked}: {} {} {safe:?}"')], [], [])
PANIC = Edit("panic", PLUGIN, [('"too many"', '"far too many"')], [], [])
WEIGHT = Edit("weight", SHARED, [("number * 2", "number * 3")], [], [])
MORE = Edit(
    "more",
    PLUGIN,
    [
        ("thread_local! {", "thread_local! {\n    static FRESH: Cell<u64> = const { Cell::new(40) };"),
        ("    let asked", "    FRESH.set(FRESH.get() + 1);\n    let asked"),
        ('{safe:?}", MINE.get()', '{safe:?} {}", MINE.get()'),
        ("shared::weighed(number))", "shared::weighed(number), FRESH.get())"),
    ],
    [],
    [],
)
FIELD = Edit(
    "a static of another type", PLUGIN, [("ASKED: AtomicU64 = AtomicU64", "ASKED: AtomicI64 = AtomicI64"),
                                        ("AtomicU64, Ordering", "AtomicI64, Ordering")], [], [],
)  # fmt: skip


@pytest.fixture
def c_program(crates: CargoProject) -> Path:
    program, folder = crates.folder / "main", "target/debug"
    words = ["gcc", "-g", "main.c", "-o", program, f"-L{folder}", "-lplug_in", f"-Wl,-rpath,{crates.folder}/{folder}"]
    subprocess.run(words, cwd=crates.folder, check=True)
    return program


def library(project: CargoProject) -> Path:
    return project.folder / "target/debug/libplug_in.so"


def apply(talk: Talk, debugger: str) -> Outcome:
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert outcome["outcome"] == "patched", json.dumps(outcome, indent=1)
    return outcome


def functions(outcome: Outcome) -> set[str]:
    return {row["name"] for row in outcome["functions"]}


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_plugin_and_its_program_are_patched_together(crates: CargoProject, debugger: str) -> None:
    talk = Talk(crates.program, str(library(crates)))
    try:
        assert talk.ask("3") == "100 1 6 Ok(3) 6"
        crates.edit(WORDS, PANIC)
        found = apply(talk, debugger)
        assert {"plugged", "plug_in::risky"} <= functions(found)
        assert talk.ask("3") == "101: 2 6 Ok(3) 6"
        assert talk.ask("9") == '102: 3 18 Err(Some("far too many")) 18'
        crates.edit(WEIGHT)
        outcome = apply(talk, debugger)
        assert [row["name"] for row in outcome["functions"]] == ["shared::weighed"] * 2, "a copy in each"
        assert talk.ask("3") == "103: 4 9 Ok(3) 9"
        crates.edit(MORE)
        outcome = ipbp("apply", talk.process.pid, debugger)
        assert {row["code"] for row in outcome["refusals"]} == {"thread-local"}, "rustc counts it from those that exist"
        for _ in range(2):
            assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
        assert talk.ask("3") == "104 5 6 Ok(3) 6"
        assert talk.close() == 0
    finally:
        talk.kill()


@pytest.mark.parametrize("debugger", [pytest.param("gdb", marks=pytest.mark.slow), "lldb"])
def test_a_c_program_that_is_linked_with_rust(crates: CargoProject, c_program: Path, debugger: str) -> None:
    talk = Talk(c_program)
    try:
        assert talk.ask("3") == "100 1 6 Ok(3)"
        crates.edit(WORDS, WEIGHT, MORE)
        assert {"plugged", "shared::weighed"} <= functions(apply(talk, debugger))
        assert talk.ask("3") == "101: 2 9 Ok(3) 41"
        crates.edit(FIELD)
        outcome = ipbp("apply", talk.process.pid, debugger)
        assert [row["code"] for row in outcome["refusals"]] == ["variable-type-changed"], outcome
        assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
        assert talk.ask("3") == "102 3 6 Ok(3)"
        assert talk.close() == 0
    finally:
        talk.kill()
