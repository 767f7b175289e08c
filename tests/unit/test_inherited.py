"""A forked process has the patches of its parent that were in force at that moment, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.host.inherited import inherit
from ipbp.host.journal import Journal, open_entry, open_journal, process_name
from ipbp.protocol import Allocation, PatchPlan, Region, Replacement, Segment

PLACE, OTHER, ARENA = 0x1000, 0x1100, 0x20000
OLD, ONE, TWO = b"\x55\x48\x89\xe5\x90", b"\xe9\x01\x00\x00\x00", b"\xe9\x02\x00\x00\x00"
PARENT, CHILD = 1111, 2222


class Process:
    """A few bytes, and the first patch's memory when it is there."""

    def __init__(self, *entry: bytes, arena: bool = True) -> None:
        self.bytes = {PLACE: entry[0], OTHER: entry[1] if len(entry) > 1 else OLD}
        self.has_arena = arena

    def regions(self) -> list[Region]:
        rows = [Region(PLACE, PLACE + 0x1000, "rx", 0, "/app", 5)]
        return [*rows, Region(ARENA, ARENA + 0x1000, "rx")] if self.has_arena else rows

    def read(self, address: int, size: int) -> bytes:
        return self.bytes[address][:size]


def journal_of(folder: Path, pid: int, vector: bytes = b"vector") -> Journal:
    place = folder / process_name(procfs.boot_id(), pid, 7, vector)
    place.mkdir(mode=0o700)
    return Journal(place)


@pytest.fixture
def parent(tmp_path: Path) -> Journal:
    return journal_of(tmp_path, PARENT)


@pytest.fixture
def child(tmp_path: Path) -> Journal:
    return journal_of(tmp_path, CHILD)


def begin(journal: Journal, number: int, address: int = PLACE, before: bytes = OLD, after: bytes = ONE) -> None:
    file = journal.folder / f"patch-{number}.elf"
    file.write_bytes(b"elf")
    plan = PatchPlan(
        number=number,
        files=(str(file),),
        allocations=(Allocation(ARENA, 0x1000, "rx"),) if number == 1 else (),
        segments=(Segment(ARENA + 0x100 * number, 16, 0, "rx"),),
        replacements=(Replacement(address, before, after, "f"),),
        calls=(),
        forbidden=(),
        functions=(),
        record={"number": number},
    )
    journal.begin(open_entry(plan))


def applied(journal: Journal, number: int, *place: object) -> None:
    begin(journal, number, *place)  # type: ignore[arg-type]
    journal.commit(number)


def numbers(journal: Journal) -> list[int]:
    return [patch.number for patch in journal.patches()]


def test_what_was_in_force_at_the_fork_is_the_childs_own(parent: Journal, child: Journal) -> None:
    applied(parent, 1)

    inherit(child, Process(ONE))

    (patch,) = child.patches()
    assert child.inherited_from(patch) == PARENT
    assert child.latest_record() == {"number": 1}
    assert child.next_number() == 2
    assert patch.plan == replace(parent.patches()[0].plan, files=(str(child.folder / "patch-1.elf"),))
    assert (child.folder / "patch-1.elf").read_bytes() == b"elf"


def test_a_patch_of_its_own_is_not_said_to_be_inherited(parent: Journal, child: Journal) -> None:
    applied(parent, 1)
    inherit(child, Process(ONE))
    applied(child, 2, PLACE, ONE, TWO)
    assert [child.inherited_from(patch) for patch in child.patches()] == [PARENT, 0]


@pytest.mark.parametrize(
    ("process", "found"),
    [
        (Process(OLD, arena=False), []),
        (Process(ONE), [1]),
        (Process(TWO), [1, 2]),
        (Process(TWO, ONE), [1, 2, 3]),
        (Process(OLD, ONE), []),  # no state of the parent's
        (Process(b"\xcc" * 5), []),
        (Process(ONE, arena=False), []),
    ],
)
def test_which_patches_these_are_is_told_by_memory(
    parent: Journal, child: Journal, process: Process, found: list[int]
) -> None:
    applied(parent, 1)
    applied(parent, 2, PLACE, ONE, TWO)
    applied(parent, 3, OTHER)
    inherit(child, process)
    assert numbers(child) == found
    assert child.is_empty() == (not found)


def test_what_the_parent_has_undone_since_can_be_undone_and_not_gone_on_from(parent: Journal, child: Journal) -> None:
    applied(parent, 1)
    parent.undoing(1)
    parent.undone(1, True)
    inherit(child, Process(ONE))
    assert numbers(child) == [1]
    with pytest.raises(IpbpError) as error:
        child.latest_record()
    assert error.value.code == "inherited-undone"


def test_what_the_parent_had_undone_before_is_not_in_force(parent: Journal, child: Journal) -> None:
    applied(parent, 1)
    parent.undoing(1)
    parent.undone(1, True)
    inherit(child, Process(OLD))
    assert numbers(child) == []
    assert child.written_ranges() == [(ARENA + 0x100, ARENA + 0x110)], "a thread may have been there"


def test_a_patch_that_the_parent_is_only_about_to_make_is_not_taken_for_one(parent: Journal, child: Journal) -> None:
    applied(parent, 1)
    begin(parent, 2, PLACE, ONE, TWO)
    inherit(child, Process(ONE))
    assert (numbers(child), child.unfinished()) == ([1], None)


def test_a_process_that_was_started_is_nobodys_child(parent: Journal, tmp_path: Path) -> None:
    applied(parent, 1)
    started = journal_of(tmp_path, CHILD, b"another vector")
    inherit(started, Process(ONE))
    assert started.is_empty()


def test_a_journal_that_has_begun_stays_as_it_is(parent: Journal, child: Journal) -> None:
    applied(parent, 1)
    applied(child, 1, OTHER)
    inherit(child, Process(ONE, ONE))
    assert [change.address for patch in child.patches() for change in patch.changes] == [OTHER]


def test_a_dead_parents_journal_is_there_for_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    script = (
        "import os, sys; os.fork() or (os.write(1, b'%d\\n' % os.getpid()), sys.stdin.read(), os._exit(0)); os.wait()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:  # type: ignore[call-overload]
        heir = int(process.stdout.readline())
        journal = open_journal(process.pid)
        applied(journal, 1)
        process.kill()
        process.wait()

        own = open_journal(heir)
        assert own.is_empty()
        inherit(own, Process(ONE))
        assert own.inherited_from(own.patches()[0]) == process.pid

        process.stdin.close()
        while Path(f"/proc/{heir}").exists():
            os.sched_yield()
        open_journal(os.getpid())
        assert not journal.folder.exists()
        assert not own.folder.exists()
