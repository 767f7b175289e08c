"""Rust in libraries that other programs load: a plugin of a Rust program, and a part of a C program."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cargo_project import CargoProject, build_cargo_project
from scenario import Edit, Talk
from sessions import Outcome, ipbp

pytestmark = pytest.mark.live
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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> CargoProject:
    project = build_cargo_project(tmp_path_factory.mktemp("cargo") / "plugged", workspace="plugged")
    words = [
        "gcc",
        "-g",
        "main.c",
        "-o",
        "main",
        "-Ltarget/debug",
        "-lplug_in",
        f"-Wl,-rpath,{project.folder}/target/debug",
    ]
    subprocess.run(words, cwd=project.folder, check=True)
    return project


@pytest.fixture
def plugged(built: CargoProject) -> Iterator[CargoProject]:
    yield built
    built.restore()


def library(project: CargoProject) -> Path:
    return project.folder / "target/debug/libplug_in.so"


def apply(talk: Talk, debugger: str) -> Outcome:
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert outcome["outcome"] == "patched", json.dumps(outcome, indent=1)
    return outcome


def functions(outcome: Outcome) -> set[str]:
    return {row["name"] for row in outcome["functions"]}


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_a_plugin_and_its_program_are_patched_together(plugged: CargoProject, debugger: str) -> None:
    talk = Talk(plugged.program, str(library(plugged)))
    try:
        assert talk.ask("3") == "100 1 6 Ok(3) 6"
        plugged.edit(WORDS, PANIC)
        found = apply(talk, debugger)
        assert {"plugged", "plug_in::risky"} <= functions(found)
        assert talk.ask("3") == "101: 2 6 Ok(3) 6"
        assert talk.ask("9") == '102: 3 18 Err(Some("far too many")) 18'
        plugged.edit(WEIGHT)
        outcome = apply(talk, debugger)
        assert [row["name"] for row in outcome["functions"]] == ["shared::weighed"] * 2, "a copy in each"
        assert talk.ask("3") == "103: 4 9 Ok(3) 9"
        plugged.edit(MORE)
        outcome = ipbp("apply", talk.process.pid, debugger)
        assert {row["code"] for row in outcome["refusals"]} == {"thread-local"}, "rustc counts it from those that exist"
        for _ in range(2):
            assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
        assert talk.ask("3") == "104 5 6 Ok(3) 6"
        assert talk.close() == 0
    finally:
        talk.kill()


@pytest.mark.parametrize("debugger", [pytest.param("gdb", marks=pytest.mark.slow), "lldb"])
def test_a_c_program_that_is_linked_with_rust(plugged: CargoProject, debugger: str) -> None:
    talk = Talk(plugged.folder / "main")
    try:
        assert talk.ask("3") == "100 1 6 Ok(3)"
        plugged.edit(WORDS, WEIGHT, MORE)
        assert {"plugged", "shared::weighed"} <= functions(apply(talk, debugger))
        assert talk.ask("3") == "101: 2 9 Ok(3) 41"
        plugged.edit(FIELD)
        outcome = ipbp("apply", talk.process.pid, debugger)
        assert [row["code"] for row in outcome["refusals"]] == ["variable-type-changed"], outcome
        assert ipbp("undo", talk.process.pid, debugger)["outcome"] == "undone"
        assert talk.ask("3") == "102 3 6 Ok(3)"
        assert talk.close() == 0
    finally:
        talk.kill()
