"""Rust: a cargo workspace is edited, and the program that runs out of it goes on with the new code."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cargo_project import EDITS, REFUSED, CargoProject, build_cargo_project
from scenario import Talk
from sessions import ipbp

from ipbp.build import crates as build_of_crates
from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.codegen_units import made_objects
from ipbp.build.crates import program_crates, workshop_of
from ipbp.build.in_place import is_possible
from ipbp.cli.bystander import Bystander
from ipbp.errors import IpbpError, Refused
from ipbp.host.commands import plan_params
from ipbp.host.journal import open_journal
from ipbp.pipeline.order import Outcome, make_plan
from ipbp.pipeline.request import Request

pytestmark = [pytest.mark.live, pytest.mark.compiles]
WORKSPACE = "market"
BY_NAME = {edit.name: edit for edit in EDITS}


def patched(talk: Talk, debugger: str, number: int = 0) -> set[str]:
    """Names of the functions that one `ipbp apply` patched. `number`: of the patch, where that is known."""
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert outcome["outcome"] == "patched", json.dumps(outcome, indent=1)
    assert number in (0, outcome["patch"])
    return {row["name"] for row in outcome["functions"]}


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_all_edits_of_all_crates_are_live_and_undone(crates: CargoProject, running: Talk, debugger: str) -> None:
    for edit in EDITS:
        for command, before, _after in edit.ask[:1]:
            assert running.ask(command) == before, edit.name
    crates.edit(*EDITS)
    assert patched(running, debugger)
    for edit in EDITS:
        for command, _before, after in edit.ask:
            assert running.ask(command) == after, edit.name
    assert ipbp("undo", running.process.pid, debugger)["outcome"] == "undone"
    assert running.ask("price 4") == "40"
    assert running.ask("twice ab") == "abab"
    assert running.ask("tally y") == "102 x 3"
    assert running.ask("survive 9") == "too many: 9 ba"
    assert running.close() == 0


def planned(talk: Talk, *allowed: str, exact: bool = False, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """What the engine makes of the sources as they are now; nothing is written into the program."""
    inferior, journal = Bystander(talk.process.pid), open_journal(talk.process.pid)
    params = plan_params(
        inferior.describe(), inferior.regions(), journal, False, {"allow_layout": allowed, "exact": exact}
    )
    return make_plan(Request.from_json(params), inferior.read_ranges, tell)


def test_patch_after_patch_and_back(crates: CargoProject, running: Talk) -> None:
    assert running.ask("tally x") == "100 x 1"
    edits = [EDITS[0], BY_NAME["unwinding through a patched function"]]
    for number, edit in enumerate(edits, start=1):
        crates.edit(edit)
        assert patched(running, "gdb", number), edit.name
        for command, _before, after in edit.ask:
            assert running.ask(command) == after, edit.name
    crates.restore()
    assert patched(running, "gdb", len(edits) + 1)
    for edit in edits:
        for command, before, _after in edit.ask[:1]:
            assert running.ask(command) == before, edit.name
    assert running.ask("tally y") == "101 x 2"
    assert running.close() == 0


def test_edits_that_would_misread_what_lives_are_refused_by_the_types_name(crates: CargoProject, running: Talk) -> None:
    for bad in REFUSED:
        crates.edit(bad.edit)
        with pytest.raises(Refused) as caught:
            planned(running)
        found = {(row.code, row.symbol) for row in caught.value.refusals}
        assert (bad.code, bad.symbol) in found, (bad.edit.name, found)
        crates.restore()
    crates.edit(REFUSED[0].edit)
    assert planned(running, "market::Till").plan is not None, "the user knows that none is alive"


def test_fields_in_another_order_lie_where_rustc_puts_them(crates: CargoProject, running: Talk) -> None:
    source = crates.folder / "market/src/main.rs"
    before, after = "    coins: u64,\n    open: bool,\n", "    open: bool,\n    coins: u64,\n"
    assert source.read_text().count(before) == 1
    source.write_text(source.read_text().replace(before, after))
    assert planned(running).notes == (), "no layout is another"


def test_lines_that_moved_change_no_function(crates: CargoProject, running: Talk) -> None:
    source = crates.folder / "market/src/main.rs"
    source.write_text(source.read_text().replace("use shapes::Shape;", "\n\n// Three lines more.\nuse shapes::Shape;"))
    outcome = planned(running)
    assert outcome.plan is None
    assert any("but for the lines that" in note for note in outcome.notes), outcome.notes
    exact = planned(running, exact=True).plan
    assert exact is not None
    assert {row.reason for row in exact.functions} == {"its panics name other lines"}
    assert "market::main" in {row.name for row in exact.functions}, [row.name for row in exact.functions]


def test_a_compile_error_is_shown_as_rustc_prints_it(crates: CargoProject, running: Talk) -> None:
    source = crates.folder / "parts/src/lib.rs"
    source.write_text(source.read_text().replace("items * 10\n", 'items * "ten"\n'))
    with pytest.raises(IpbpError) as caught:
        planned(running)
    assert caught.value.code == "compile-failed"
    assert "error[E0277]: cannot multiply `u64` by `&str`" in caught.value.detail
    assert "parts/src/lib.rs:" in caught.value.detail


def test_closures_that_capture_more_are_new_and_old_ones_go_on(crates: CargoProject, running: Talk) -> None:
    assert running.ask("rules 10") == "15"
    source = crates.folder / "market/src/main.rs"
    source.write_text(
        source.read_text().replace("move |price| price - discount", "move |price| price - discount - tax")
    )
    outcome = ipbp("apply", running.process.pid, "gdb")
    assert outcome["outcome"] == "patched", outcome
    assert any("market::rules" in note and "old code" in note for note in outcome["notes"])
    assert running.ask("rules 10") == "15", "what was boxed before the patch has no room for what the new one captures"
    assert running.close() == 0


@pytest.mark.parametrize("is_allowed", [True, False])
def test_libraries_are_made_and_used_wherever_the_compiler_works(
    crates: CargoProject, running: Talk, monkeypatch: pytest.MonkeyPatch, is_allowed: bool
) -> None:
    if not is_allowed:
        monkeypatch.setattr("ipbp.build.rustc_run.is_possible", lambda: False)
    # One that others compile, so that all of them are compiled with it.
    source = crates.folder / "parts/src/lib.rs"
    source.write_text(source.read_text().replace('"{value}{value}"', f'"{{value}}+{is_allowed}+{{value}}"'))
    found = planned(running).plan
    assert found is not None
    assert any("twice" in row.name for row in found.functions)


@pytest.mark.parametrize("is_refused", [True, False])
def test_a_compiler_that_fails_when_its_objects_are_final_has_failed(
    crates: CargoProject, running: Talk, monkeypatch: pytest.MonkeyPatch, is_refused: bool
) -> None:
    """Its objects are looked at before it has ended; and what it says comes first."""
    run, ended = build_of_crates.run_rustc, threading.Event()

    def failing(row: CrateCommand, *rest: Any) -> str:
        said = run(row, *rest)
        if not row.is_image:
            return said
        assert ended.wait(60), "nobody waits for it"
        raise IpbpError("compile-failed", "it failed at its end", "Correct it.")

    def told(line: str) -> None:
        if line == "comparing with what runs":
            ended.set()

    monkeypatch.setattr(build_of_crates, "run_rustc", failing)
    crates.edit(REFUSED[0].edit if is_refused else BY_NAME["closure that is stored"])
    with pytest.raises(IpbpError, match="it failed at its end") as raised:
        planned(running, tell=told)
    assert raised.value.code == "compile-failed"
    monkeypatch.undo()
    if not is_refused:
        found = planned(running).plan
        assert found is not None
        assert found.functions


def assert_warm(project: CargoProject) -> None:
    """Most of the program's objects were none to generate for ipbp's first compile: they are the user's files."""
    user = {path.stat().st_ino for path in (project.folder / "target/debug/incremental").rglob("*.o")}
    crates = program_crates(project.program)
    made = made_objects(crates[-1], workshop_of(crates))
    ours = {os.stat(row.path).st_ino for row in made if row.path is not None}
    assert len(user & ours) > len(ours) / 2 > 1


def test_the_users_build_is_left_alone(tmp_path: Path) -> None:
    project = build_cargo_project(tmp_path / "market")
    talk = Talk(project.program)
    try:
        before = project.files()
        project.edit(*EDITS)
        assert patched(talk, "gdb")
        assert project.files() == before
        if is_possible():
            assert_warm(project)
        project.restore()
        assert "Fresh parts" in project.cargo("build", "-v")
        assert "Compiling" not in project.cargo("build", "-v")
        project.edit(BY_NAME["closure that is stored"])
        said = project.cargo("build")
        assert "Compiling market" in said
        assert "Compiling parts" not in said
    finally:
        talk.kill()
    rebuilt = Talk(project.program)
    assert rebuilt.ask("rules 10") == "708"
    assert rebuilt.close() == 0
