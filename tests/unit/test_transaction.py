"""A patch is in the process entirely or not at all: every step is made to fail, in every way, and looked at."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from ipbp.errors import IpbpError, Refused
from ipbp.host import transaction
from ipbp.host.fake import CODE, PAGE, FakeInferior
from ipbp.host.inferior import Breakpoint
from ipbp.host.journal import Journal, open_entry
from ipbp.protocol import Allocation, Call, FunctionChange, Hook, PatchedImage, PatchPlan, Quiet, Replacement, Segment

ARENA_CODE, ARENA_DATA = 0x10000000, 0x10002000
FIRST, SECOND = CODE + 0x100, CODE + 0x180
REGISTER, FORGET, RESOLVE = CODE + 0x400, CODE + 0x410, CODE + 0x420
BEFORE, AFTER = CODE + 0x430, CODE + 0x440
OLD = b"\x90" * 5
JUMP = b"\xe9\x01\x02\x03\x04"  # jmp  into the arena
NEW_CODE, NEW_DATA = bytes(range(1, 101)), b"constant"
SLOT = ARENA_DATA + 64


def make_plan(folder: Path, number: int = 1, calls: bool = True, allocate: bool = True) -> PatchPlan:
    image = folder / f"patch-{number}.elf"
    image.write_bytes(b"\x7fELF" + NEW_CODE + NEW_DATA)
    shift = (number - 1) * 0x200
    return PatchPlan(
        number=number,
        files=(str(image),),
        allocations=(Allocation(ARENA_CODE, 2 * PAGE, "rx"), Allocation(ARENA_DATA, PAGE, "rw")) if allocate else (),
        segments=(
            Segment(ARENA_CODE + shift, len(NEW_CODE), 4, "rx"),
            Segment(ARENA_DATA + shift, len(NEW_DATA), 4 + len(NEW_CODE), "rw"),
        ),
        replacements=(Replacement(FIRST, OLD, JUMP, "blit"), Replacement(SECOND, OLD, JUMP[::-1], "fill")),
        calls=(
            Call(REGISTER, (ARENA_DATA, 1), "unwind tables"),
            Call(RESOLVE, (), "strlen", result_at=SLOT),
            Call(FORGET, (ARENA_DATA,), "unwind tables", on_undo=True),
        )
        if calls
        else (),
        forbidden=((FIRST + 1, FIRST + 5), (SECOND + 1, SECOND + 5)),
        functions=(FunctionChange("blit", "changed", "its code", "draw.c", FIRST, ARENA_CODE, 100),),
        record={"units": {"draw.c": number}},
        arenas=({"used": number},),
    )


HOOKS = (
    Hook("ipbp_before_patch", BEFORE, ARENA_DATA, ARENA_DATA + 8, is_before=True),
    Hook("ipbp_after_patch", AFTER, ARENA_DATA, ARENA_DATA + 8, is_before=False),
)


class Known(FakeInferior):
    """A process that the kernel keeps nothing for."""

    def kept_words(self, seconds: float) -> list[int]:
        return []


def make_inferior(kind: type[FakeInferior] = FakeInferior, **options: bool) -> FakeInferior:
    inferior = kind(threads=3, **options)
    inferior.functions = {
        REGISTER: lambda *_: 0,
        FORGET: lambda *_: 0,
        RESOLVE: lambda: 0x7FFFDEADBEEF,
        BEFORE: lambda _: 0,
        AFTER: lambda _: 0,
    }
    return inferior


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o700)
    return Journal(folder)


def apply(inferior: FakeInferior, plan: PatchPlan, journal: Journal) -> transaction.Applied:
    return transaction.apply(inferior, transaction.prepare(plan), journal)


def program(inferior: FakeInferior) -> dict[int, bytes]:
    """All memory but the arena."""
    return {
        page: content for page, content in inferior.snapshot().items() if not ARENA_CODE <= page < ARENA_DATA + PAGE
    }


def arena(inferior: FakeInferior) -> dict[int, bytes]:
    return {page: content for page, content in inferior.snapshot().items() if ARENA_CODE <= page < ARENA_DATA + PAGE}


@pytest.mark.parametrize("answer", [1, 0x1_0000_0001, 0, 0x1_0000_0000])
def test_a_call_that_says_whether_it_did_is_believed(tmp_path: Path, journal: Journal, answer: int):
    inferior = make_inferior()
    inferior.functions[REGISTER] = lambda *_: answer
    before = program(inferior)
    made = make_plan(tmp_path)
    plan = replace(made, calls=(replace(made.calls[0], says_so=True), *made.calls[1:]))
    if answer & 0xFF:
        assert apply(inferior, plan, journal).number == 1
        return
    with pytest.raises(IpbpError) as caught:
        apply(inferior, plan, journal)
    assert caught.value.code == "inferior-call"
    assert program(inferior) == before
    assert inferior.calls == [(REGISTER, (ARENA_DATA, 1))]
    assert PatchPlan.from_json(plan.to_json()).calls == plan.calls


def test_an_applied_patch_is_all_there(tmp_path: Path, journal: Journal):
    inferior = make_inferior()

    applied = apply(inferior, make_plan(tmp_path), journal)

    assert (applied.number, applied.moved, applied.disarmed) == (1, (), ())
    assert [stack.thread for stack in applied.stacks] == [100, 101, 102]
    assert inferior.read(ARENA_CODE, 101) == NEW_CODE + b"\0"
    assert inferior.read(ARENA_DATA, 9) == NEW_DATA + b"\0"
    assert inferior.read(SLOT, 8) == (0x7FFFDEADBEEF).to_bytes(8, "little")
    assert (inferior.read(FIRST, 6), inferior.read(SECOND, 6)) == (JUMP + b"\x90", JUMP[::-1] + b"\x90")
    assert inferior.calls == [(REGISTER, (ARENA_DATA, 1)), (RESOLVE, ())]
    protections = {r.start: r.protection for r in inferior.regions()}
    assert (protections[ARENA_CODE], protections[ARENA_DATA]) == ("rx", "rw")


def test_the_journal_knows_an_applied_patch(tmp_path: Path, journal: Journal):
    apply(make_inferior(), make_plan(tmp_path), journal)

    fresh = Journal(journal.folder)
    assert [patch.number for patch in fresh.patches()] == [1]
    assert (fresh.unfinished(), fresh.latest_record(), fresh.latest_arenas()) == (
        None,
        {"units": {"draw.c": 1}},
        [{"used": 1}],
    )
    assert fresh.entries() == {FIRST: JUMP, SECOND: JUMP[::-1]}


def test_undo_puts_every_byte_of_the_program_back_and_leaves_the_patch_mapped(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    before = inferior.snapshot()
    apply(inferior, make_plan(tmp_path), journal)

    undone = transaction.undo(inferior, journal.patches()[0], journal)

    assert undone == transaction.Undone(1, ())
    assert program(inferior) == before
    assert inferior.read(ARENA_CODE, 100) == NEW_CODE
    assert inferior.calls[-1] == (FORGET, (ARENA_DATA,))
    assert (journal.patches(), journal.latest_record(), journal.entries()) == ([], {}, {})
    assert journal.latest_arenas() == [{"used": 1}]
    assert journal.next_number() == 2


def test_unwind_tables_stay_while_a_thread_is_in_the_code_of_the_patch(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    apply(inferior, make_plan(tmp_path), journal)
    inferior.write(inferior.thread(101).registers["rsp"] + 16, (ARENA_CODE + 40).to_bytes(8, "little"))

    undone = transaction.undo(inferior, journal.patches()[0], journal)

    assert "unwind tables" in undone.notes[0]
    assert (FORGET, (ARENA_DATA,)) not in inferior.calls


def test_unwind_tables_stay_while_a_thread_may_hold_the_unwinders_lock(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    plan = replace(make_plan(tmp_path), quiet=Quiet(held=((CODE + 0x600, CODE + 0x680),)))
    apply(inferior, plan, journal)
    inferior.thread(101).registers["rip"] = CODE + 0x610
    with pytest.raises(IpbpError) as caught:
        transaction.require_quiet_for(inferior, journal.patches())
    assert caught.value.code == "program-busy"

    undone = transaction.undo(inferior, journal.patches()[0], journal)

    assert "unwind tables: thread 101" in undone.notes[0]
    assert (FORGET, (ARENA_DATA,)) not in inferior.calls
    transaction.require_quiet_for(inferior, [])


def test_undo_can_be_done_by_another_debugger_with_the_journal_alone(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    before = inferior.snapshot()
    apply(inferior, make_plan(tmp_path), journal)

    fresh = Journal(journal.folder)
    transaction.undo(inferior, fresh.patches()[-1], fresh)

    assert program(inferior) == before
    assert journal.patches() == []


def test_patches_are_undone_newest_first(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    apply(inferior, make_plan(tmp_path), journal)
    second = replace(
        make_plan(tmp_path, 2, calls=False, allocate=False),
        replacements=(Replacement(FIRST, JUMP, b"\xe9\0\0\0\0", "blit"),),
    )
    apply(inferior, second, journal)
    old, new = journal.patches()

    with pytest.raises(IpbpError) as caught:
        transaction.undo(inferior, old, journal)

    assert caught.value.code == "undo-order"
    transaction.undo(inferior, new, journal)
    assert inferior.read(FIRST, 5) == JUMP
    assert journal.latest_record() == {"units": {"draw.c": 1}}


def test_everything_that_is_not_as_expected_is_told_at_once(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    inferior.map(ARENA_DATA, PAGE, "rw")
    inferior.write(FIRST + 4, b"\xcc")
    inferior.write(SECOND, b"\xcc")
    before = inferior.snapshot()

    with pytest.raises(Refused) as caught:
        apply(inferior, make_plan(tmp_path), journal)

    assert [refusal.code for refusal in caught.value.refusals] == ["memory-changed", "memory-changed", "address-taken"]
    assert inferior.snapshot() == before
    assert (journal.patches(), journal.unfinished(), journal.next_number()) == ([], None, 1)


@pytest.mark.parametrize("offset", [0, 99])
def test_memory_that_is_in_use_is_not_written_over(offset: int, tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    inferior.map(ARENA_CODE, 2 * PAGE, "rx")
    inferior.map(ARENA_DATA, PAGE, "rw")
    inferior.write(ARENA_CODE + offset, b"\x01")

    with pytest.raises(Refused) as caught:
        apply(inferior, make_plan(tmp_path, allocate=False), journal)

    assert [refusal.code for refusal in caught.value.refusals] == ["memory-not-empty"]


def test_the_neighbours_of_a_patch_in_an_arena_may_be_in_use(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    inferior.map(ARENA_CODE, 2 * PAGE, "rx")
    inferior.map(ARENA_DATA, PAGE, "rw")
    inferior.write(ARENA_CODE + 100, b"\x01")

    apply(inferior, make_plan(tmp_path, allocate=False), journal)

    assert inferior.read(ARENA_CODE, 101) == NEW_CODE + b"\x01"


@pytest.mark.parametrize("protection", ["rw", "rwx", "r"])
def test_code_goes_to_executable_and_not_writable_memory_only(protection: str, tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    inferior.map(ARENA_CODE, 2 * PAGE, protection)
    inferior.map(ARENA_DATA, PAGE, "rw")

    with pytest.raises(Refused) as caught:
        apply(inferior, make_plan(tmp_path, allocate=False), journal)

    assert [refusal.code for refusal in caught.value.refusals] == ["plan-malformed"]


def test_replacements_at_one_place_or_of_two_lengths_are_a_bug_and_not_tried(tmp_path: Path, journal: Journal):
    plan = replace(
        make_plan(tmp_path),
        replacements=(Replacement(FIRST, OLD, JUMP, "one"), Replacement(FIRST + 4, OLD, JUMP + b"\0", "two")),
    )

    with pytest.raises(Refused) as caught:
        apply(make_inferior(), plan, journal)

    assert [refusal.code for refusal in caught.value.refusals] == ["plan-malformed", "plan-malformed"]


def test_an_image_that_is_too_short_is_an_error(tmp_path: Path):
    plan = make_plan(tmp_path)
    Path(plan.files[0]).write_bytes(b"\x7fELF")

    with pytest.raises(IpbpError) as caught:
        transaction.prepare(plan)

    assert caught.value.code == "image-short"


def test_a_thread_inside_the_entry_is_moved_and_said_so(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    inferior.thread(102).registers["rip"] = SECOND + 2

    applied = apply(inferior, make_plan(tmp_path), journal)

    assert applied.moved == (102,)
    assert inferior.thread(102).registers["rip"] == SECOND + 5


def test_a_thread_that_cannot_be_moved_leaves_everything_as_it_was(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    inferior.thread(102).registers["rip"] = SECOND + 2
    inferior.instruction_lengths[SECOND + 2] = 0
    before = inferior.snapshot()

    with pytest.raises(IpbpError, match="rolled back") as caught:
        apply(inferior, make_plan(tmp_path), journal)

    assert caught.value.code == "safepoint-stuck"
    assert inferior.snapshot() == before
    assert inferior.calls[-1] == (FORGET, (ARENA_DATA,))


def arm(inferior: FakeInferior, *addresses: int) -> list[Breakpoint]:
    points = [Breakpoint(f"{number}.1", address, 1) for number, address in enumerate(addresses, 1)]
    inferior.armed = {point.location: point for point in points}
    return points


def test_a_breakpoint_on_the_first_byte_stays_and_those_behind_it_come_back_with_undo(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    first, second, outside = arm(inferior, FIRST, FIRST + 4, FIRST + 5)

    applied = apply(inferior, make_plan(tmp_path), journal)

    assert set(inferior.armed.values()) == {first, outside}
    assert applied.disarmed == (second,)
    transaction.undo(inferior, journal.patches()[0], journal, applied.disarmed)
    assert set(inferior.armed.values()) == {first, second, outside}


def operations_of(tmp_path: Path, inferior: FakeInferior, journal: Journal) -> int:
    inferior.fail(0)
    apply(inferior, make_plan(tmp_path), journal)
    return inferior.operations


@pytest.mark.parametrize("shows_orig_rax", [True, False])
@pytest.mark.parametrize("how", ["before", "half", "after"])
def test_whichever_primitive_fails_memory_is_as_before_or_as_after(how: str, shows_orig_rax: bool, tmp_path: Path):
    wanted = make_inferior()
    (tmp_path / "0").mkdir()
    count = operations_of(tmp_path, wanted, Journal(tmp_path / "0"))
    assert count > 40

    for at in range(1, count + 1):
        inferior = make_inferior(shows_orig_rax=shows_orig_rax)
        inferior.thread(101).registers["rip"] = SECOND + 3
        points = arm(inferior, FIRST, FIRST + 4)
        before = inferior.snapshot()
        (tmp_path / str(at)).mkdir()
        journal = Journal(tmp_path / str(at))
        inferior.fail(at, how)

        with pytest.raises(IpbpError) as caught:
            apply(inferior, make_plan(tmp_path), journal)

        inferior.fail(0)
        said = str(caught.value)
        assert program(inferior) == before, (at, said)
        assert journal.unfinished() is None, (at, said)
        assert journal.patches() == [], (at, said)
        # Memory that calls may have pointed into stays and is on the books; everything else is given back.
        assert bool(arena(inferior)) == bool(journal.written_ranges()), (at, said)
        if how == "before":
            assert set(inferior.armed.values()) == set(points), (at, said)
        assert journal.latest_record() == {}

        # And it can be done again: elsewhere, when memory was kept.
        if not arena(inferior):
            again = apply(inferior, replace(make_plan(tmp_path), number=journal.next_number()), journal)
            assert inferior.read(FIRST, 5) == JUMP
            assert again.number == journal.patches()[-1].number


@pytest.mark.parametrize("how", ["before", "half", "after"])
def test_wherever_the_debugger_dies_the_next_one_puts_the_old_code_back(how: str, tmp_path: Path):
    (tmp_path / "0").mkdir()
    count = operations_of(tmp_path, make_inferior(), Journal(tmp_path / "0"))
    recovered = 0

    for at in range(1, count + 1):
        inferior = make_inferior()
        before = inferior.snapshot()
        (tmp_path / str(at)).mkdir()
        inferior.fail(at, how, for_good=True)
        with pytest.raises((IpbpError, Refused)):
            apply(inferior, make_plan(tmp_path), Journal(tmp_path / str(at)))

        inferior.fail(0)
        journal = Journal(tmp_path / str(at))  # a new debugger: nothing but the file is left
        number = transaction.recover(inferior, journal)

        recovered += number
        assert program(inferior) == before, at
        assert (journal.unfinished(), journal.patches()) == (None, []), at
        assert transaction.recover(inferior, journal) == 0
        arenas = journal.latest_arenas()
        assert bool(arenas) <= (len(arena(inferior)) == 3), at
    assert recovered > count // 2


@pytest.mark.parametrize("how", ["before", "half", "after"])
def test_whichever_primitive_fails_an_undo_is_done_or_not_begun(how: str, tmp_path: Path):
    done = kept = 0
    for at in range(1, 200):
        inferior = make_inferior()
        before = inferior.snapshot()
        (tmp_path / str(at)).mkdir()
        journal = Journal(tmp_path / str(at))
        apply(inferior, make_plan(tmp_path), journal)
        patched = inferior.snapshot()
        inferior.fail(at, how)
        try:
            transaction.undo(inferior, journal.patches()[0], journal)
        except IpbpError:
            kept += 1
            assert inferior.snapshot() == patched, at
            assert [patch.number for patch in journal.patches()] == [1], at
        else:
            done += 1
            assert program(inferior) == before, at
            assert journal.patches() == [], at
        assert journal.unfinished() is None
        if inferior.operations < at:
            break
    assert kept > 5
    assert done >= 1


def test_wherever_the_debugger_dies_in_an_undo_the_next_one_finishes_or_keeps(tmp_path: Path):
    finished = 0
    for at in range(1, 40):
        inferior = make_inferior()
        before = inferior.snapshot()
        (tmp_path / str(at)).mkdir()
        apply(inferior, make_plan(tmp_path), Journal(tmp_path / str(at)))
        patched = inferior.snapshot()
        journal = Journal(tmp_path / str(at))
        inferior.fail(at, "half", for_good=True)
        with contextlib.suppress(IpbpError):
            transaction.undo(inferior, journal.patches()[0], journal)
        inferior.fail(0)

        journal = Journal(tmp_path / str(at))
        finished += transaction.recover(inferior, journal)

        assert journal.unfinished() is None
        if journal.patches():
            assert inferior.snapshot() == patched, at
        else:
            assert program(inferior) == before, at
    assert finished > 5


def test_ctrl_c_rolls_back_and_says_so(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    before = inferior.snapshot()

    def interrupt() -> int:
        raise KeyboardInterrupt

    inferior.functions[RESOLVE] = interrupt
    with pytest.raises(IpbpError, match="rolled back") as caught:
        apply(inferior, make_plan(tmp_path), journal)

    assert caught.value.code == "interrupted"
    assert program(inferior) == before


def test_after_a_call_that_failed_nothing_is_forgotten_and_the_memory_stays(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    del inferior.functions[RESOLVE]
    before = inferior.snapshot()

    with pytest.raises(IpbpError, match="rolled back"):
        apply(inferior, make_plan(tmp_path), journal)

    assert program(inferior) == before
    assert (FORGET, (ARENA_DATA,)) not in inferior.calls
    assert inferior.read(ARENA_CODE, 100) == NEW_CODE
    assert (ARENA_CODE, ARENA_CODE + 100) in journal.written_ranges()
    assert journal.latest_arenas() == [{"used": 1}]


def test_hooks_see_the_old_code_before_and_the_new_code_after(tmp_path: Path, journal: Journal):
    inferior, seen = make_inferior(), []

    def look(argument: int) -> int:
        seen.append((argument, inferior.read(FIRST, len(OLD)) == OLD))
        return 0

    inferior.functions.update({BEFORE: look, AFTER: look})
    apply(inferior, replace(make_plan(tmp_path), hooks=HOOKS), journal)
    assert seen == [(ARENA_DATA, True), (ARENA_DATA, False)]
    transaction.undo(inferior, journal.patches()[0], journal)
    assert seen[2:] == [(ARENA_DATA + 8, False), (ARENA_DATA + 8, True)]


def test_a_hook_that_does_not_come_back_is_a_note(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    del inferior.functions[BEFORE], inferior.functions[AFTER]
    applied = apply(inferior, replace(make_plan(tmp_path), hooks=HOOKS), journal)
    assert [note.split()[0] for note in applied.notes] == ["ipbp_before_patch", "ipbp_after_patch"]
    assert inferior.read(FIRST, len(OLD)) == JUMP
    undone = transaction.undo(inferior, journal.patches()[0], journal)
    assert [note.split()[0] for note in undone.notes] == ["ipbp_before_patch", "ipbp_after_patch"]


@pytest.mark.parametrize("how", ["before", "half", "after"])
def test_whatever_fails_around_hooks_the_journal_tells_which_code_runs(how: str, tmp_path: Path):
    plan = replace(make_plan(tmp_path), hooks=HOOKS)
    at, outcomes = 0, set()
    while True:
        at += 1
        inferior = make_inferior()
        before = inferior.snapshot()
        (tmp_path / f"{at}").mkdir()
        journal = Journal(tmp_path / f"{at}")
        inferior.fail(at, how)
        try:
            notes = apply(inferior, plan, journal).notes
        except IpbpError:
            assert program(inferior) == before
            assert journal.patches() == []
            outcomes.add("rolled back")
            continue
        inferior.fail(0)
        assert inferior.read(FIRST, len(OLD)) == JUMP
        assert [patch.number for patch in journal.patches()] == [plan.number]
        outcomes.add("noted" if notes else "done")
        if not notes:
            break
    assert outcomes == {"rolled back", "noted", "done"}


def test_code_that_a_call_changed_is_not_written_over(tmp_path: Path, journal: Journal):
    inferior = make_inferior()

    def change() -> int:
        inferior.write(SECOND, b"\xcc")
        return 0

    inferior.functions[RESOLVE] = change
    with pytest.raises(Refused):
        apply(inferior, make_plan(tmp_path), journal)

    assert (inferior.read(FIRST, 5), inferior.read(SECOND, 5)) == (OLD, b"\xcc\x90\x90\x90\x90")


def test_an_unfinished_patch_must_be_put_right_first(tmp_path: Path, journal: Journal):
    journal.begin(open_entry(make_plan(tmp_path)))

    with pytest.raises(IpbpError) as caught:
        apply(make_inferior(), make_plan(tmp_path, 2), journal)

    assert caught.value.code == "journal-unfinished"


def test_a_patch_that_was_torn_off_before_it_was_in_force_leaves_no_memory(tmp_path: Path):
    (tmp_path / "0").mkdir()
    count = operations_of(tmp_path, make_inferior(), Journal(tmp_path / "0"))
    looked_at = 0
    for at in range(1, count + 1):
        inferior = make_inferior()
        before = inferior.snapshot()
        (tmp_path / str(at)).mkdir()
        inferior.fail(at, "after", for_good=True)
        with contextlib.suppress(IpbpError):
            apply(inferior, make_plan(tmp_path, calls=False), Journal(tmp_path / str(at)))
        inferior.fail(0)
        journal = Journal(tmp_path / str(at))
        if program(inferior) != before or journal.unfinished() is None:
            continue

        transaction.recover(inferior, journal)

        looked_at += 1
        assert inferior.snapshot() == before, at
        assert (journal.latest_arenas(), journal.mapped_size()) == ([], 0), at
    assert looked_at > 10


def undone_patches(folder: Path) -> tuple[FakeInferior, dict[int, bytes], Journal]:
    """Two patches in one arena that were undone, of which one had something registered; the program before them."""
    inferior = make_inferior(Known)
    before = inferior.snapshot()
    journal = Journal(folder)
    for number in (1, 2):
        plan = make_plan(folder, number, allocate=number == 1)
        spans = tuple((row.address, row.address + row.size) for row in plan.segments)
        plan = replace(plan, reclaimable=spans, calls=tuple(plan.calls[2:]) if number == 1 else ())
        apply(inferior, plan, journal)
        transaction.undo(inferior, journal.patches()[0], journal)
    return inferior, before, journal


def test_memory_of_all_undone_patches_is_given_back_at_once(tmp_path: Path):
    inferior, before, journal = undone_patches(tmp_path)
    assert journal.mapped_size() == 3 * PAGE

    inferior.write(FIRST + 0x40, ARENA_CODE.to_bytes(8, "little"))  # no pointer: the memory is not writable
    inferior.thread(100).registers["rbx"] = ARENA_CODE + 0x204
    transaction.give_back(inferior, journal)
    assert [patch.state for patch in journal.all_patches()] == ["undone", "undone"]  # the arena is that of the first

    inferior.write(FIRST + 0x40, b"\x90" * 8)
    inferior.thread(100).registers["rbx"] = 0
    transaction.give_back(inferior, journal)
    assert inferior.snapshot() == before
    assert (journal.mapped_size(), journal.latest_arenas()) == (0, [])


def test_memory_of_a_patch_stays_while_something_that_it_registered_does(tmp_path: Path):
    inferior = make_inferior(Known)
    journal = Journal(tmp_path)
    plan = make_plan(tmp_path)
    apply(inferior, replace(plan, reclaimable=((ARENA_CODE, ARENA_CODE + 100),), calls=plan.calls[2:]), journal)
    inferior.functions[FORGET] = lambda *_: _refuse()
    transaction.undo(inferior, journal.patches()[0], journal)
    transaction.give_back(inferior, Journal(tmp_path))
    assert journal.mapped_size() == 3 * PAGE


def _refuse() -> int:
    raise IpbpError("inferior-call", "it crashed", "Look.")


@pytest.mark.parametrize("how", ["before", "half", "after"])
def test_wherever_the_debugger_dies_memory_is_given_back_or_kept(how: str, tmp_path: Path):
    ends = set()
    for at in range(1, 60):
        (tmp_path / str(at)).mkdir()
        inferior, before, journal = undone_patches(tmp_path / str(at))
        inferior.fail(at, how, for_good=True)
        transaction.give_back(inferior, journal)
        is_over = inferior.operations < at
        inferior.fail(0)

        journal = Journal(tmp_path / str(at))
        transaction.recover(inferior, journal)
        assert journal.unfinished() is None
        assert program(inferior) == {page: before[page] for page in program(inferior)}
        ends.add(journal.mapped_size())

        transaction.give_back(inferior, journal)
        assert inferior.snapshot() == before, at
        if is_over:
            break
    assert ends == {0, 3 * PAGE}


def test_memory_that_was_being_given_back_is_given_back(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    before = inferior.snapshot()
    plan = make_plan(tmp_path, calls=False)
    apply(inferior, plan, journal)
    journal.undoing(1)
    for change in plan.replacements:
        inferior.write(change.address, change.expected)
    journal.undone(1, True)
    journal.reclaiming(1)
    transaction.inject.release(inferior, ARENA_CODE, 2 * PAGE)  # and here the debugger died

    assert Journal(journal.folder).patches() == []
    assert transaction.recover(inferior, Journal(journal.folder)) == 1

    assert inferior.snapshot() == before
    assert Journal(journal.folder).mapped_size() == 0


def test_strange_bytes_are_left_alone_by_recovery(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    journal.begin(open_entry(make_plan(tmp_path)))
    inferior.write(FIRST, JUMP)
    inferior.write(SECOND + 1, b"\xcc")
    before = inferior.snapshot()

    with pytest.raises(IpbpError, match="fill") as caught:
        transaction.recover(inferior, journal)

    assert caught.value.code == "recover-unexpected"
    assert inferior.snapshot() == before
    assert journal.unfinished() is not None


def test_a_hundred_patches_and_undoes_leave_the_program_as_it_was(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    before = inferior.snapshot()
    inferior.map(ARENA_CODE, 32 * PAGE, "rx")
    inferior.map(0x10100000, PAGE, "rw")
    for number in range(1, 101):
        plan = replace(make_plan(tmp_path, number, calls=False, allocate=False))
        plan = replace(plan, segments=plan.segments[:1])
        apply(inferior, plan, journal)
        transaction.undo(inferior, journal.patches()[0], journal)

    assert {page: inferior.snapshot()[page] for page in before} == before
    assert sorted(path.name for path in journal.folder.iterdir()) == ["journal"]


def test_a_patch_of_a_library_that_is_not_there_any_more_is_refused(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    gone = PatchedImage("/lib/gone.so", FIRST & -PAGE, (FIRST & -PAGE) + PAGE, 4711)
    before = inferior.snapshot()

    with pytest.raises(Refused) as caught:
        apply(inferior, replace(make_plan(tmp_path), images=(gone,)), journal)

    assert [refusal.code for refusal in caught.value.refusals] == ["image-unloaded"]
    assert inferior.snapshot() == before


def test_undo_and_recovery_leave_out_what_was_unloaded(tmp_path: Path, journal: Journal):
    inferior = make_inferior()
    plan = make_plan(tmp_path)
    region = inferior.regions()[0]
    program = PatchedImage("/app", region.start, region.end, region.inode, is_executable=True)
    library = replace(program, path="/lib/gone.so", inode=4711)
    changes = (plan.replacements[0], replace(plan.replacements[1], image=1))
    apply(inferior, replace(plan, replacements=changes, images=(program, library)), journal)
    inferior.write(SECOND, b"other")  # another library's, at the same place
    journal.forget(library.key, 1)
    transaction.undo(inferior, journal.patches()[-1], journal)

    assert inferior.read(FIRST, 5) == OLD
    assert inferior.read(SECOND, 5) == b"other"
