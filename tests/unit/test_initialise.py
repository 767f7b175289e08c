"""Initialisers run when the new code is in force, and one that fails takes the patch back."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from test_transaction import ARENA_CODE, ARENA_DATA, FIRST, FORGET, JUMP, NEW_CODE, OLD, apply, make_inferior, make_plan

from ipbp.arch.catcher import catcher_of, decode_report
from ipbp.arch.machines import AARCH64, X86_64, machine_of
from ipbp.errors import IpbpError
from ipbp.host import transaction
from ipbp.host.fake import CODE, FakeInferior
from ipbp.host.initialise import type_name
from ipbp.host.journal import Journal
from ipbp.protocol import Initialiser, PatchPlan
from ipbp.stages.unwind import unwind_links, unwind_records, unwind_section

CATCH, MAKE, MORE = CODE + 0x500, CODE + 0x510, CODE + 0x520
REPORT, ERRNO = ARENA_DATA + 0x100, ARENA_DATA + 0x300
TYPE, NAME = ARENA_DATA + 0x340, ARENA_DATA + 0x380


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o700)
    return Journal(folder)


def plan(folder: Path) -> PatchPlan:
    rows = tuple(Initialiser(made, (name,), "draw.cc", CATCH, REPORT) for made, name in ((MAKE, "one"), (MORE, "two")))
    return replace(make_plan(folder), initialisers=rows)


def inferior_that(calls: list[tuple[int, bool]], throws: int = 0, crashes: int = 0) -> FakeInferior:
    inferior = make_inferior()

    def call_and_catch(function: int, report: int) -> int:
        calls.append((function, inferior.read(FIRST, len(OLD)) == JUMP))
        inferior.write(report, struct.pack("<Q4s4x", ERRNO, b"\x07\0\0\0"))
        if function == crashes:
            raise IpbpError("inferior-call", "the call of 0x1 in the program did not come back: SIGSEGV", "")
        if function == throws:
            inferior.write(TYPE + 8, NAME.to_bytes(8, "little"))
            inferior.write(NAME, b"*St13runtime_error\0")
            inferior.write(report + 16, TYPE.to_bytes(8, "little") + b"no luck\0")
        return int(function == throws)

    inferior.functions[CATCH] = call_and_catch
    return inferior


def test_they_run_in_order_when_the_new_code_is_in_force(tmp_path: Path, journal: Journal) -> None:
    calls: list[tuple[int, bool]] = []
    inferior = inferior_that(calls)
    apply(inferior, plan(tmp_path), journal)
    assert calls == [(MAKE, True), (MORE, True)]
    assert PatchPlan.from_json(plan(tmp_path).to_json()) == plan(tmp_path)

    # Destructors may still throw in its code, and its memory stays.
    assert not transaction.undo(inferior, journal.patches()[0], journal).notes
    assert (FORGET, (ARENA_DATA,)) not in inferior.calls
    assert inferior.read(ARENA_CODE, len(NEW_CODE)) == NEW_CODE
    assert len(calls) == 2


def test_what_one_throws_is_said_and_the_patch_taken_back(tmp_path: Path, journal: Journal) -> None:
    calls: list[tuple[int, bool]] = []
    inferior = inferior_that(calls, throws=MAKE)
    with pytest.raises(IpbpError) as caught:
        apply(inferior, plan(tmp_path), journal)
    assert caught.value.code == "initialiser-failed"
    assert "'one' threw std::runtime_error: no luck; rolled back" in caught.value.fact
    assert calls == [(MAKE, True)]
    assert inferior.read(FIRST, len(OLD)) == OLD
    assert journal.patches() == []
    # Objects that it made may have destructors that are called at exit.
    assert inferior.read(ARENA_CODE, len(NEW_CODE)) == NEW_CODE
    assert (FORGET, (ARENA_DATA,)) not in inferior.calls
    assert (ARENA_CODE, ARENA_CODE + 100) in journal.written_ranges()


def test_errno_is_put_back_after_a_crash(tmp_path: Path, journal: Journal) -> None:
    inferior = inferior_that([], crashes=MORE)
    inferior.functions[MAKE] = lambda: 0
    with pytest.raises(IpbpError, match=r"'two' crashed: SIGSEGV; rolled back"):
        apply(inferior, plan(tmp_path), journal)
    assert inferior.read(ERRNO, 4) == b"\x07\0\0\0"
    assert inferior.read(FIRST, len(OLD)) == OLD


def test_names_of_types_are_written_as_in_the_source() -> None:
    written = {"St13runtime_error": "std::runtime_error", "N3app5ErrorE": "app::Error", "7Failure": "Failure"}
    written |= {"i": "int", "PKc": "const char *", "St8optionalIiE": "St8optionalIiE", "9Short": "9Short"}
    assert {mangled: type_name(mangled) for mangled in written} == written


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
def test_what_catches_has_its_rows(machine: str) -> None:
    graph = catcher_of(machine_of(machine).catcher)
    section = unwind_section(graph)
    assert section is not None
    records = unwind_records(section.content, "")
    assert [record.is_cie for record in records] == [True, False]
    links = unwind_links(graph)
    assert sorted(zip(links.symbol.tolist(), links.is_own.tolist(), strict=True)) == [(1, True), (3, False)]
    content = struct.pack("<Q4s4xQ", 1, b"four", 2) + b"text\0" + bytes(251)
    assert decode_report(content) == (1, b"four", 2, "text")
