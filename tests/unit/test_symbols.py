"""Which patches' symbols the debugger has, and where breakpoints have no place any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipbp.host import symbols
from ipbp.host.fake import FakeInferior
from ipbp.host.inferior import OldCode
from ipbp.host.journal import Journal, open_entry
from ipbp.host.old_code import old_code, versions
from ipbp.host.safepoint import Stack
from ipbp.protocol import FunctionChange, PatchPlan, Segment

ENTRY, OTHER, ARENA = 0x400100, 0x400200, 0x10000000


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    symbols._announced.clear()
    yield Journal(tmp_path)
    symbols._announced.clear()


def patch(journal: Journal, number: int, *entries: int, data: tuple[str, ...] = (), status: str = "changed") -> str:
    """Each function of patch N is at ARENA + N * 0x1000 + its entry's last byte, 0x20 bytes long."""
    start = ARENA + number * 0x1000
    functions = tuple(
        FunctionChange(f"f{entry:x}", status, "", "a.c", entry, start + (entry & 0xF00), 0x20, 0x40)
        for entry in entries
    )
    file = f"/p/patch-{number}.elf"
    segments = (Segment(start, 0x1000, 0, "rx"),)
    plan = PatchPlan(number, (file,), (), segments, (), (), (), functions, data)
    journal.begin(open_entry(plan))
    journal.commit(number)
    return file


def stack(*words: int, pc: int = 0x7000, thread: int = 1) -> Stack:
    return Stack(thread, pc, b"".join(word.to_bytes(8, "little") for word in words))


def settled(journal: Journal, *stacks: Stack, inferior: FakeInferior | None = None) -> FakeInferior:
    inferior = inferior or FakeInferior()
    symbols.settle(inferior, journal, stacks)
    return inferior


def test_of_many_versions_the_newest_is_known(journal: Journal) -> None:
    files = [patch(journal, number, ENTRY) for number in range(1, 51)]
    assert settled(journal).announced == files[-1:]


def test_a_patch_with_a_function_that_is_current_stays(journal: Journal) -> None:
    first, second = patch(journal, 1, ENTRY, OTHER), patch(journal, 2, ENTRY)
    assert settled(journal).announced == [first, second]


def test_a_patch_that_brought_a_variable_stays(journal: Journal) -> None:
    first, second = patch(journal, 1, ENTRY, data=("x (new)",)), patch(journal, 2, ENTRY)
    assert settled(journal).announced == [first, second]


@pytest.mark.parametrize("at", [{"pc": ARENA + 0x1000 + 0x100 + 4}, {"words": (ARENA + 0x1000 + 0x100 + 4,)}])
def test_a_patch_that_a_thread_is_in_stays_until_it_has_left(journal: Journal, at: dict[str, object]) -> None:
    first, second = patch(journal, 1, ENTRY), patch(journal, 2, ENTRY)
    there = stack(*at.get("words", ()), pc=at.get("pc", 0x7000))  # type: ignore[call-overload]
    inferior = settled(journal, there)
    assert inferior.announced == [first, second]
    assert settled(journal, stack(), inferior=inferior).announced == [second]


def test_undone_patches_leave_nothing_and_the_one_before_is_back(journal: Journal) -> None:
    first, second = patch(journal, 1, ENTRY), patch(journal, 2, ENTRY)
    inferior = settled(journal)
    assert inferior.announced == [second]
    journal.undone(2, True)
    assert settled(journal, inferior=inferior).announced == [first]
    journal.undone(1, True)
    assert settled(journal, inferior=inferior).announced == []


def test_old_versions_are_retired_and_what_runs_keeps_its_places_but_for_the_jump(journal: Journal) -> None:
    patch(journal, 1, ENTRY)
    patch(journal, 2, ENTRY)
    old = ARENA + 0x1000 + 0x100
    inferior = settled(journal)
    assert inferior.retired == [(ENTRY, ENTRY + 0x40), (old, old + 0x20)]
    assert inferior.marked == []
    # A return address in the original: breakpoints there are still of use, but for one at the jump.
    assert settled(journal, stack(ENTRY + 9), inferior=inferior).retired == [(ENTRY, ENTRY + 5), (old, old + 0x20)]
    assert inferior.marked == [OldCode(ENTRY, ENTRY + 0x40, "old code, version 1 of 3", (1,))]
    journal.undone(2, True)
    journal.undone(1, True)
    assert settled(journal, inferior=inferior).retired == []
    assert inferior.marked == []


def test_code_of_an_undone_patch_that_still_runs_is_marked(journal: Journal) -> None:
    patch(journal, 1, ENTRY)
    journal.undone(1, True)
    code = ARENA + 0x1000 + 0x100
    inferior = settled(journal, stack(code + 9, thread=7))
    assert inferior.marked == [OldCode(code, code + 0x20, "code of patch 1, which was undone", (7,))]
    assert settled(journal, stack(pc=code, thread=7), inferior=inferior).marked == inferior.marked
    assert settled(journal, stack(code), inferior=inferior).marked == []


def test_a_function_that_a_patch_brought_has_no_original(journal: Journal) -> None:
    patch(journal, 1, ENTRY, status="new")
    assert [(row.number, row.is_newest, row.is_original) for row in _versions(journal)] == [(1, True, False)]
    patch(journal, 2, ENTRY)
    assert [(row.number, row.is_newest) for row in _versions(journal)] == [(1, False), (2, True)]


def test_who_runs_old_code_is_told_by_version(journal: Journal) -> None:
    patch(journal, 1, ENTRY)
    patch(journal, 2, ENTRY)
    name = f"f{ENTRY:x}"
    assert old_code([stack(ENTRY + 3, thread=7)], journal) == [
        {"thread": 7, "function": name, "version": 1, "newest": 3}
    ]
    assert old_code([stack(ARENA + 0x2000 + 0x104, thread=7)], journal) == []
    # A pointer to the function is no place in it.
    assert old_code([stack(ENTRY, thread=7)], journal) == []


def _versions(journal: Journal) -> list[object]:
    return versions([row for patch in journal.patches() for row in patch.functions])  # type: ignore[return-value]
