"""The journal tells the truth whatever happened to its writer, and is believed only when nobody else can write it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ipbp.errors import IpbpError
from ipbp.host import journal as journals
from ipbp.host import procfs
from ipbp.host.journal import Journal, identity, open_entry, open_journal, process_name, state_folder
from ipbp.protocol import PatchPlan, Replacement, Segment


def plan(number: int, address: int = 0x1000) -> PatchPlan:
    return PatchPlan(
        number=number,
        files=(f"/tmp/patch-{number}.elf",),
        allocations=(),
        segments=(Segment(0x10000 * number, 16, 64, "rx"),),
        replacements=(Replacement(address, b"\x90\xff\x00\n\r", bytes([number] * 5), "blit"),),
        calls=(),
        forbidden=((address + 1, address + 5),),
        functions=(),
        notes=("a note with ü and\nlines",),
        times={"diff": 1.5},
        record={"number": number},
        arenas=({"used": number},),
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "ipbp"


def test_an_empty_journal_says_nothing(journal: Journal):
    assert (journal.patches(), journal.unfinished(), journal.next_number()) == ([], None, 1)
    assert (journal.latest_record(), journal.latest_arenas(), journal.entries(), journal.written_ranges()) == (
        {},
        [],
        {},
        [],
    )


def test_a_plan_comes_back_as_it_was_but_for_its_record(journal: Journal):
    journal.begin(open_entry(plan(1)))
    journal.commit(1)

    (patch,) = Journal(journal.folder).patches()

    assert patch.plan == replace(plan(1), record={})
    assert Journal(journal.folder).latest_record() == {"number": 1}


def test_a_begun_patch_is_unfinished_and_not_in_force(journal: Journal):
    journal.begin(open_entry(plan(1)))

    assert journal.patches() == []
    assert journal.unfinished().number == 1


def test_a_begun_undo_is_unfinished_and_still_in_force(journal: Journal):
    journal.begin(open_entry(plan(1)))
    journal.commit(1)
    journal.undoing(1)

    assert [patch.number for patch in journal.patches()] == [1]
    assert journal.unfinished().state == journals.UNDOING
    journal.undo_failed(1)
    assert journal.unfinished() is None


def test_after_an_undo_the_patch_before_counts_and_the_memory_stays_on_the_books(journal: Journal):
    for number in (1, 2):
        journal.begin(open_entry(plan(number)))
        journal.commit(number)
    journal.undoing(2)
    journal.undone(2, True)

    assert journal.latest_record() == {"number": 1}
    assert journal.latest_arenas() == [{"used": 2}]
    assert journal.entries() == {0x1000: b"\x01" * 5}
    assert journal.written_ranges() == [(0x10000, 0x10010), (0x20000, 0x20010)]
    assert journal.next_number() == 3


def test_the_newest_patch_says_what_is_at_an_entry(journal: Journal):
    for number in (1, 2):
        journal.begin(open_entry(plan(number)))
        journal.commit(number)

    assert journal.entries() == {0x1000: b"\x02" * 5}


@pytest.mark.parametrize("kept", [False, True])
def test_a_patch_that_was_rolled_back_leaves_memory_only_when_it_was_kept(journal: Journal, kept: bool):
    journal.begin(open_entry(plan(1)))
    journal.rolled_back(1, kept)

    assert journal.patches() == []
    assert journal.written_ranges() == ([(0x10000, 0x10010)] if kept else [])
    assert journal.latest_arenas() == ([{"used": 1}] if kept else [])


def test_a_line_that_was_cut_off_anywhere_never_happened(journal: Journal):
    journal.begin(open_entry(plan(1)))
    path = journal.folder / "journal"
    before = path.read_bytes()
    journal.commit(1)
    line = path.read_bytes()[len(before) :]

    for length in range(len(line)):
        path.write_bytes(before + line[:length])
        torn = Journal(journal.folder)
        assert torn.unfinished().number == 1, length
        torn.rolled_back(1, False)
        assert Journal(journal.folder).unfinished() is None, length


def test_a_first_line_that_was_cut_off_never_happened_either(journal: Journal):
    (journal.folder / "journal").write_bytes(b'{"event":"beg')

    assert journal.patches() == []
    journal.begin(open_entry(plan(1)))
    assert journal.unfinished().number == 1


def test_a_long_journal_is_made_short_and_says_the_same(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    for number in range(1, 41):
        journal.begin(open_entry(plan(number)))
        journal.commit(number)
        if number not in (3, 7):
            journal.undoing(number)
            journal.undone(number, True)
            if number != 5:
                journal.reclaiming(number)
                journal.reclaimed(number)
    journal.forget("/lib/x", 7)
    other = Journal(journal.folder)
    before = facts(other)
    size = (journal.folder / "journal").stat().st_size
    journal.make_short()
    assert (journal.folder / "journal").stat().st_size == size, "it is not long"

    monkeypatch.setattr(journals, "_LONG", 1)
    journal.make_short()

    assert (journal.folder / "journal").stat().st_size < size / 5
    assert [facts(each) for each in (journal, other, Journal(journal.folder))] == [before] * 3
    assert journal.next_number() == 41
    journal.begin(open_entry(plan(41)))
    assert other.unfinished().number == 41


def test_a_journal_with_something_unfinished_is_left_alone(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journals, "_LONG", 1)
    journal.begin(open_entry(plan(1)))
    content = (journal.folder / "journal").read_bytes()

    journal.make_short()

    assert (journal.folder / "journal").read_bytes() == content


def facts(journal: Journal) -> list[object]:
    return [
        [patch.number for patch in journal.patches()],
        journal.unfinished(),
        journal.next_number(),
        journal.latest_record(),
        journal.latest_arenas(),
        journal.entries(),
        journal.written_ranges(),
        journal.mapped_size(),
    ]


def test_two_readers_of_one_file_agree(journal: Journal):
    other = Journal(journal.folder)
    assert other.patches() == []
    journal.begin(open_entry(plan(1)))
    assert other.unfinished().number == 1
    other.commit(1)
    assert [patch.number for patch in journal.patches()] == [1]


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b'{"event":"begin","number":1}', b'{"event":"odd","number":1}'])
def test_lines_that_are_none_are_an_error(journal: Journal, line: bytes):
    (journal.folder / "journal").write_bytes(line + b"\n")

    with pytest.raises(IpbpError) as caught:
        journal.patches()

    assert caught.value.code == "journal-malformed"


def test_a_lost_record_is_an_error(journal: Journal):
    journal.begin(open_entry(plan(1)))
    journal.commit(1)
    (journal.folder / "record-1.json").unlink()

    with pytest.raises(IpbpError) as caught:
        journal.latest_record()

    assert caught.value.code == "journal-malformed"


def test_nobody_else_can_read_or_write_it(state: Path):
    journal = open_journal(os.getpid())
    journal.begin(open_entry(plan(1)))

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in journal.folder.iterdir()}
    assert modes == {"journal": 0o600, "namespace": 0o600, "record-1.json": 0o600}
    assert [stat.S_IMODE(p.stat().st_mode) for p in (state, journal.folder)] == [0o700, 0o700]


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_to_is_not_believed(state: Path, mode: int):
    journal = open_journal(os.getpid())
    journal.folder.chmod(mode)

    with pytest.raises(IpbpError) as caught:
        open_journal(os.getpid())

    assert caught.value.code == "journal-untrusted"


def test_a_folder_of_another_user_is_not_believed(state: Path, monkeypatch: pytest.MonkeyPatch):
    open_journal(os.getpid())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(IpbpError) as caught:
        open_journal(os.getpid())

    assert caught.value.code == "journal-untrusted"


def test_a_journal_that_others_could_have_written_is_not_believed(state: Path):
    journal = open_journal(os.getpid())
    journal.begin(open_entry(plan(1)))
    (journal.folder / "journal").chmod(0o666)

    with pytest.raises(IpbpError) as caught:
        open_journal(os.getpid()).patches()

    assert caught.value.code == "journal-untrusted"


def test_a_link_instead_of_a_folder_is_not_believed(state: Path, tmp_path: Path):
    state.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    state.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(IpbpError) as caught:
        state_folder()

    assert caught.value.code == "journal-untrusted"


def test_a_process_has_one_journal_and_another_process_another(state: Path, child: subprocess.Popen[bytes]):
    assert open_journal(os.getpid()).folder == open_journal(os.getpid()).folder
    assert open_journal(child.pid).folder != open_journal(os.getpid()).folder


def test_a_process_that_replaced_its_program_has_a_new_journal(state: Path):
    script = (
        "import os, sys; sys.stdin.buffer.raw.read(1); os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    )
    second = "import sys; print('second', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, second], **pipes) as process:
        before = identity(process.pid)
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.stdout.readline() == b"second\n"
        after = identity(process.pid)
        process.kill()

    assert before != after


def test_journals_of_dead_processes_and_other_boots_are_removed(state: Path, child: subprocess.Popen[bytes]):
    dead = open_journal(child.pid)
    mine = open_journal(os.getpid())
    rebooted = state / mine.folder.name.replace(procfs.boot_id(), "0" * 8 + procfs.boot_id()[8:])
    rebooted.mkdir()
    (state / "engine.log").write_text("stays")
    (state / "notes").mkdir()
    assert dead.folder.is_dir()
    child.kill()
    child.wait()

    open_journal(os.getpid())

    assert sorted(path.name for path in state.iterdir()) == sorted(["engine.log", "notes", mine.folder.name])


def test_a_journal_of_another_pid_namespace_is_not_taken_for_one_of_a_dead_process(
    state: Path, child: subprocess.Popen[bytes]
):
    other = open_journal(child.pid)
    child.kill()
    child.wait()
    (other.folder / "namespace").write_text("pid:[1]")
    open_journal(os.getpid())
    assert other.folder.is_dir()
    month_ago = other.folder.stat().st_mtime - 31 * 24 * 3600
    os.utime(other.folder, (month_ago, month_ago))
    open_journal(os.getpid())
    assert not other.folder.exists()


def test_a_process_that_turns_out_to_be_of_this_machine_has_one_journal(state: Path, child: subprocess.Popen[bytes]):
    assert open_journal(child.pid, identity(child.pid)).folder == open_journal(child.pid).folder


def test_the_journal_of_a_process_elsewhere_is_kept_until_nobody_used_it_for_a_month(state: Path):
    # This very process, started at another time.
    name = process_name(procfs.boot_id(), os.getpid(), 1, b"")
    elsewhere = open_journal(os.getpid(), name)
    elsewhere.begin(open_entry(plan(1)))

    assert open_journal(os.getpid(), name).next_number() == 2
    assert elsewhere.folder != open_journal(os.getpid()).folder

    os.utime(elsewhere.folder, (time.time() - 32 * 24 * 3600,) * 2)
    open_journal(os.getpid())
    assert not elsewhere.folder.exists()


def test_a_full_disk_is_an_error_with_the_path(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    journal.begin(open_entry(plan(1)))
    monkeypatch.setattr(os, "pwrite", full)

    with pytest.raises(IpbpError, match="No space left") as caught:
        journal.commit(1)

    assert caught.value.code == "journal-unwritable"
    monkeypatch.undo()
    assert journal.unfinished().number == 1


def test_every_line_is_one_json_object(journal: Journal):
    journal.begin(open_entry(plan(1)))
    journal.commit(1)

    rows = [json.loads(line) for line in (journal.folder / "journal").read_text().splitlines()]

    assert [row["event"] for row in rows] == ["begin", "commit"]
