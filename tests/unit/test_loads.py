"""Libraries that the program opens for a patch, on the in-memory process: what is filled in, and every way back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_transaction import ARENA_CODE, ARENA_DATA, NEW_CODE, make_inferior, make_plan, program

from ipbp.errors import IpbpError
from ipbp.host import transaction
from ipbp.host.fake import CODE, DATA, LIBC_CODE, FakeInferior
from ipbp.host.journal import Journal
from ipbp.protocol import Load, PatchPlan, Quiet

OPEN, CLOSE, ERROR, ERRNO = CODE + 0x500, CODE + 0x510, CODE + 0x520, CODE + 0x530
HANDLE, LIBRARY, ERRNO_AT, TEXT = DATA + 0x100, DATA + 0x200, DATA + 0x300, DATA + 0x400
OFFSET = -192


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    folder = tmp_path / "journal"
    folder.mkdir()
    return Journal(folder)


def loading(handle: int) -> FakeInferior:
    """A process whose dlopen returns this handle and spoils errno."""
    inferior = make_inferior()

    def dlopen(name: int, flags: int) -> int:
        inferior.write(ERRNO_AT, (2).to_bytes(4, "little"))
        return handle

    inferior.functions.update({OPEN: dlopen, CLOSE: lambda _: 0, ERROR: lambda: TEXT, ERRNO: lambda: ERRNO_AT})
    inferior.write(HANDLE, LIBRARY.to_bytes(8, "little"))
    inferior.write(LIBRARY + 0x10, OFFSET.to_bytes(8, "little", signed=True))
    inferior.write(ERRNO_AT, (11).to_bytes(4, "little"))
    inferior.write(TEXT, b"no room in static TLS block\0")
    return inferior


def plan_with_load(folder: Path, quiet: Quiet | None = None) -> PatchPlan:
    whole = (0, 0, 0)
    part = (ARENA_CODE + 24, 4, 0x5123 - OFFSET, 12, 10, 12)  # twelve bits of an instruction get 5
    fields = ((ARENA_CODE + 20, 4, 24, *whole), (ARENA_DATA + 64, 8, 0, *whole), part)
    load = Load("threads-1.so", ARENA_DATA, 2, OPEN, CLOSE, ERROR, ERRNO, 0x10, 1 << 24, fields)
    return replace(make_plan(folder, calls=False), loads=(load,), quiet=quiet or Quiet())


def apply(inferior: FakeInferior, plan: PatchPlan, journal: Journal) -> transaction.Applied:
    return transaction.apply(inferior, transaction.prepare(plan), journal)


def test_the_fields_get_the_number_that_the_loader_left(tmp_path: Path, journal: Journal) -> None:
    inferior = loading(HANDLE)
    apply(inferior, plan_with_load(tmp_path), journal)
    assert int.from_bytes(inferior.read(ARENA_CODE + 20, 4), "little", signed=True) == OFFSET + 24
    part = int.from_bytes(NEW_CODE[24:28], "little") & ~(0xFFF << 10) | 5 << 10
    assert int.from_bytes(inferior.read(ARENA_CODE + 24, 4), "little") == part
    assert int.from_bytes(inferior.read(ARENA_DATA + 64, 8), "little", signed=True) == OFFSET
    assert (OPEN, (ARENA_DATA, 2)) in inferior.calls
    assert inferior.read(ERRNO_AT, 4) == (11).to_bytes(4, "little")


def test_a_library_that_does_not_load_is_told_in_the_loader_s_words(tmp_path: Path, journal: Journal) -> None:
    inferior = loading(0)
    before = inferior.snapshot()
    with pytest.raises(IpbpError) as caught:
        apply(inferior, plan_with_load(tmp_path), journal)
    assert caught.value.code == "library-not-loaded"
    assert caught.value.detail == "no room in static TLS block"
    assert inferior.snapshot() == before
    assert journal.patches() == []


def test_a_place_that_code_does_not_reach_is_an_error(tmp_path: Path, journal: Journal) -> None:
    inferior = loading(HANDLE)
    inferior.write(LIBRARY + 0x10, (1 << 24).to_bytes(8, "little", signed=True))
    before = program(inferior)
    with pytest.raises(IpbpError) as caught:
        apply(inferior, plan_with_load(tmp_path), journal)
    assert caught.value.code == "library-not-loaded"
    assert (CLOSE, (HANDLE,)) in inferior.calls
    assert {page for page, content in program(inferior).items() if before[page] != content} <= {DATA}
    assert journal.patches() == []


def test_whichever_primitive_fails_the_program_is_as_before_or_the_patch_is_in_force(tmp_path: Path) -> None:
    for at in range(1, 200):
        (tmp_path / f"journal-{at}").mkdir()
        inferior, journal = loading(HANDLE), Journal(tmp_path / f"journal-{at}")
        before = program(inferior)
        inferior.fail(at)
        try:
            apply(inferior, plan_with_load(tmp_path), journal)
        except IpbpError:
            # What the program's own functions wrote is theirs.
            after = {page: content for page, content in program(inferior).items() if page != DATA}
            assert after == {page: content for page, content in before.items() if page != DATA}
            assert journal.patches() == []
        else:
            if inferior.operations < at:
                return
            assert [patch.number for patch in journal.patches()] == [1]
    raise AssertionError("the patch takes more primitives than were tried")


def test_a_thread_that_may_hold_a_lock_is_not_disturbed(tmp_path: Path, journal: Journal) -> None:
    quiet = Quiet(held=((CODE + 0x600, CODE + 0x680),), moving=((LIBC_CODE, LIBC_CODE + 4096),))
    inferior = loading(HANDLE)
    first, second = inferior.all_threads[:2]
    stack = second.registers["rsp"]

    def returns_to(address: int, at: int) -> None:
        inferior.write(at, address.to_bytes(8, "little"))
        inferior.unwound.update({second.id: [address]})

    for arrange, is_busy in (
        (lambda: first.registers.update(rip=CODE + 0x610), True),
        (lambda: first.registers.update(rip=LIBC_CODE + 4), True),
        (lambda: first.registers.update(rip=LIBC_CODE + 18), False),  # in a system call
        (lambda: inferior.write(stack + 64, (CODE + 0x620).to_bytes(8, "little")), True),  # nobody can say what it is
        (lambda: returns_to(CODE + 0x700, stack + 128), False),  # a word like any other
        (lambda: inferior.unwound.update({second.id: [CODE + 0x700, CODE + 0x620]}), True),
    ):
        arrange()
        before = inferior.snapshot()
        if is_busy:
            with pytest.raises(IpbpError) as caught:
                apply(inferior, plan_with_load(tmp_path, quiet), journal)
            assert caught.value.code == "program-busy"
            assert inferior.snapshot() == before
            first.registers.update(rip=CODE)
        else:
            transaction.require_quiet(inferior, quiet)
