"""Injected system calls leave nothing behind but their effect, whatever the thread was doing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ipbp.errors import IpbpError
from ipbp.host import inject
from ipbp.host.fake import CODE, LIBC, LIBC_CODE, MASK, PAGE, FakeInferior

ARENA = 0x10000000
HANDLER = CODE + 0x200
EPOLL_WAIT, READ, NANOSLEEP, FORK, RESTART_SYSCALL = 232, 0, 35, 57, 219
AFTER_CALL = LIBC_CODE + 18  # the pc of a thread that is in the C library's system call


def test_memory_appears_at_exactly_the_address_asked_for():
    inferior = FakeInferior()

    inject.allocate(inferior, ARENA, 3 * PAGE, "rx")

    region = next(region for region in inferior.regions() if region.start == ARENA)
    assert (region.end - region.start, region.protection) == (3 * PAGE, "rx")
    assert inferior.read(ARENA, 3 * PAGE) == bytes(3 * PAGE)


@pytest.mark.parametrize("shows_orig_rax", [True, False])
def test_registers_are_as_before(shows_orig_rax: bool):
    inferior = FakeInferior(shows_orig_rax=shows_orig_rax)
    before = [dict(thread.registers) for thread in inferior.all_threads]

    inject.allocate(inferior, ARENA, PAGE, "rw")

    hidden = {} if shows_orig_rax else {"orig_rax": 0}
    assert [{**t.registers, **hidden} for t in inferior.all_threads] == [{**b, **hidden} for b in before]


def test_a_thread_that_has_still_to_get_the_result_of_its_fork_is_left_alone():
    inferior = FakeInferior(shows_orig_rax=False)
    forking, reading = inferior.interrupt_in_call(100, FORK, -38), inferior.interrupt_in_call(101, READ, -512)
    before = dict(forking.registers)

    inject.allocate(inferior, ARENA, PAGE, "rw")

    assert forking.registers == before
    assert reading.registers["rip"] == AFTER_CALL - 2  # it begins its call anew
    inferior.interrupt_in_call(101, FORK, -38)
    with pytest.raises(IpbpError) as caught:
        inject.release(inferior, ARENA, PAGE)
    assert caught.value.code == "program-busy"


@pytest.mark.parametrize("offset", [-PAGE, 0, PAGE, 3 * PAGE])
def test_an_address_that_is_taken_is_an_error_and_nothing_is_done(offset: int):
    inferior = FakeInferior()
    inferior.map(ARENA, 4 * PAGE, "r")
    before = inferior.regions()

    with pytest.raises(IpbpError) as caught:
        inject.allocate(inferior, ARENA + offset, 2 * PAGE, "rw")

    assert caught.value.code == "inject-address-taken"
    assert inferior.regions() == before


def test_the_place_right_beside_a_mapping_is_free():
    inferior = FakeInferior()
    inferior.map(ARENA, PAGE, "r")

    inject.allocate(inferior, ARENA + PAGE, PAGE, "rw")
    inject.allocate(inferior, ARENA - PAGE, PAGE, "rw")

    assert inject.is_mapped(inferior.regions(), ARENA - PAGE, PAGE, "rw")


def test_released_memory_is_gone_and_its_neighbours_are_not():
    inferior = FakeInferior()
    inject.allocate(inferior, ARENA, 3 * PAGE, "rw")

    inject.release(inferior, ARENA + PAGE, PAGE)

    assert [r.start for r in inferior.regions() if ARENA <= r.start < ARENA + 3 * PAGE] == [ARENA, ARENA + 2 * PAGE]


def test_protection_changes_for_whole_pages():
    inferior = FakeInferior()
    inject.allocate(inferior, ARENA, 2 * PAGE, "rw")

    inject.protect(inferior, ARENA, PAGE, "r")

    assert inject.is_mapped(inferior.regions(), ARENA, PAGE, "r")
    assert inject.is_mapped(inferior.regions(), ARENA + PAGE, PAGE, "rw")


def test_what_the_kernel_refuses_is_an_error_with_its_name():
    with pytest.raises(IpbpError, match="ENOMEM") as caught:
        inject.protect(FakeInferior(), ARENA, PAGE, "r")

    assert caught.value.code == "inject-failed"


@pytest.mark.parametrize("shows_orig_rax", [True, False])
@pytest.mark.parametrize("result", [-512, -513, -514])
@pytest.mark.parametrize("number", [READ, NANOSLEEP, 202])
def test_an_interrupted_call_goes_on_with_its_own_arguments(number: int, result: int, shows_orig_rax: bool):
    inferior = FakeInferior(threads=1, shows_orig_rax=shows_orig_rax)
    thread = inferior.interrupt_in_call(100, number, result)
    before = dict(thread.registers)

    inject.allocate(inferior, ARENA, PAGE, "rx")
    inferior.resume(thread)

    assert thread.registers["rax"] == number
    assert thread.registers["rip"] == AFTER_CALL - 2
    arguments = ("rdi", "rsi", "rdx", "r10", "r8", "r9", "rsp", "rbp")
    assert [thread.registers[name] for name in arguments] == [before[name] for name in arguments]


@pytest.mark.parametrize("shows_orig_rax", [True, False])
def test_a_call_with_a_deadline_goes_on_with_the_time_that_is_left(shows_orig_rax: bool):
    inferior = FakeInferior(threads=1, shows_orig_rax=shows_orig_rax)
    thread = inferior.interrupt_in_call(100, NANOSLEEP, -516)

    inject.allocate(inferior, ARENA, PAGE, "rx")
    inferior.resume(thread)

    assert (thread.registers["rax"], thread.registers["rip"]) == (RESTART_SYSCALL, AFTER_CALL - 2)


@pytest.mark.parametrize("shows_orig_rax", [True, False])
def test_a_thread_that_is_in_no_call_is_preferred(shows_orig_rax: bool):
    inferior = FakeInferior(threads=2, shows_orig_rax=shows_orig_rax)
    blocked = inferior.interrupt_in_call(100, READ, -512)
    before = dict(blocked.registers)

    inject.allocate(inferior, ARENA, PAGE, "rx")

    assert blocked.registers == before


@pytest.mark.parametrize("shows_orig_rax", [True, False])
def test_a_number_that_only_looks_like_a_restart_is_left_alone(shows_orig_rax: bool):
    inferior = FakeInferior(threads=1, shows_orig_rax=shows_orig_rax)
    thread = inferior.thread(100)
    thread.registers["rax"] = -512 & MASK
    before = dict(thread.registers)

    inject.allocate(inferior, ARENA, PAGE, "rx")

    assert {**thread.registers, "orig_rax": 0} == {**before, "orig_rax": 0}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("shows_orig_rax", [True, False])
def test_a_signal_that_cuts_in_reaches_its_handler_and_the_program_goes_on(shows_orig_rax: bool, when: str):
    inferior = FakeInferior(threads=1, shows_orig_rax=shows_orig_rax)
    thread = inferior.thread(100)
    thread.signals.append((HANDLER, when))
    before = dict(thread.registers)

    inject.allocate(inferior, ARENA, PAGE, "rx")

    assert inject.is_mapped(inferior.regions(), ARENA, PAGE, "rx")
    assert thread.registers["rip"] == HANDLER
    inferior.return_from_signal(thread, thread.registers["rdx"])
    assert thread.registers == before


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("shows_orig_rax", [True, False])
@pytest.mark.parametrize(("result", "goes_on"), [(-512, True), (-513, True), (-514, False), (-516, False)])
def test_a_signal_during_an_interrupted_call_does_what_the_kernel_would_do(
    result: int, goes_on: bool, shows_orig_rax: bool, when: str
):
    inferior = FakeInferior(threads=1, shows_orig_rax=shows_orig_rax)
    thread = inferior.interrupt_in_call(100, READ, result)
    thread.signals.append((HANDLER, when))

    inject.allocate(inferior, ARENA, PAGE, "rx")
    inferior.return_from_signal(thread, thread.registers["rdx"])
    inferior.resume(thread)

    state = (thread.registers["rax"], thread.registers["rip"])
    assert state == ((READ, AFTER_CALL - 2) if goes_on else (-4 & MASK, AFTER_CALL))


def test_several_signals_in_a_row_all_reach_their_handlers():
    inferior = FakeInferior(threads=1)
    thread = inferior.thread(100)
    before = dict(thread.registers)
    thread.signals += [(HANDLER, "before"), (HANDLER + 16, "before"), (HANDLER + 32, "after")]

    inject.allocate(inferior, ARENA, PAGE, "rx")

    for handler in (HANDLER + 32, HANDLER + 16, HANDLER):
        assert thread.registers["rip"] == handler
        inferior.return_from_signal(thread, thread.registers["rdx"])
    assert thread.registers == before


def test_signals_without_end_are_an_error_and_not_a_loop():
    inferior = FakeInferior(threads=1)
    inferior.map(0x20000000, 16 * PAGE, "rw")
    inferior.thread(100).registers["rsp"] = 0x20000000 + 16 * PAGE
    inferior.thread(100).signals += [(HANDLER + i, "before") for i in range(40)]

    with pytest.raises(IpbpError) as caught:
        inject.allocate(inferior, ARENA, PAGE, "rx")

    assert caught.value.code == "inject-diverted"


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("shows_orig_rax", [True, False])
def test_whichever_primitive_fails_the_thread_is_as_before(shows_orig_rax: bool, how: str):
    inferior = FakeInferior(threads=1, shows_orig_rax=shows_orig_rax)
    before = dict(inferior.thread(100).registers)
    failures = 0
    for at in range(1, 100):
        inferior.fail(at, how)
        try:
            inject.allocate(inferior, ARENA, PAGE, "rx")
        except IpbpError:
            failures += 1
        finished = inferior.operations < at
        inferior.fail(0)
        after = inferior.thread(100).registers
        assert {**after, "orig_rax": 0} == {**before, "orig_rax": 0}, at
        if inject.is_mapped(inferior.regions(), ARENA, PAGE, "rx"):
            inject.release(inferior, ARENA, PAGE)
        if finished:
            break
    assert failures >= 8


def test_without_any_syscall_instruction_two_bytes_are_borrowed_and_given_back():
    inferior = FakeInferior(threads=1)
    inferior.write(LIBC_CODE + 16, b"\x90\x90")
    before = inferior.read(CODE, PAGE)

    inject.allocate(inferior, ARENA, PAGE, "rx")

    assert inject.is_mapped(inferior.regions(), ARENA, PAGE, "rx")
    assert inferior.read(CODE, PAGE) == before


def test_an_instruction_across_two_pieces_of_the_search_is_found():
    inferior = FakeInferior(threads=1)
    inferior.write(LIBC_CODE + 16, b"\x90\x90")
    inferior.map(0x7F1000000000, 32 * PAGE, "rx", LIBC, b"\x90" * (16 * PAGE - 1) + b"\x0f\x05")
    before = inferior.snapshot()

    inject.allocate(inferior, ARENA, PAGE, "rx")

    assert {page: content for page, content in inferior.snapshot().items() if page != ARENA} == before


def test_the_vdso_is_never_used():
    inferior = FakeInferior(threads=1)
    inferior.write(LIBC_CODE + 16, b"\x90\x90")
    inferior.map(0x7FFE00000000, PAGE, "rx", "[vdso]", b"\x0f\x05")
    visited = []
    step = inferior.step
    inferior.step = lambda thread: (visited.append(inferior.thread(thread).registers["rip"]), step(thread))[1]

    inject.allocate(inferior, ARENA, PAGE, "rx")

    assert visited == [CODE]


@pytest.mark.parametrize("shows_orig_rax", [True, False])
def test_an_epoll_wait_that_our_stop_cut_short_goes_on(shows_orig_rax: bool):
    inferior = FakeInferior(threads=3, shows_orig_rax=shows_orig_rax)
    waiting = inferior.interrupt_in_call(101, EPOLL_WAIT, -4)
    other = dict(inferior.interrupt_in_call(102, READ, -4).registers)

    assert inject.restartable(inferior) == [101]
    inferior.resume(waiting)

    assert (waiting.registers["rax"], waiting.registers["rip"]) == (EPOLL_WAIT, AFTER_CALL - 2)
    assert inferior.thread(102).registers == other


@pytest.mark.parametrize("shows_orig_rax", [True, False])
def test_an_epoll_wait_is_put_right_once_only(shows_orig_rax: bool):
    inferior = FakeInferior(threads=1, shows_orig_rax=shows_orig_rax)
    inferior.interrupt_in_call(100, EPOLL_WAIT, -4)
    inject.restartable(inferior)
    before = dict(inferior.thread(100).registers)

    assert inject.restartable(inferior) == []
    assert inferior.thread(100).registers == before


def test_a_sandboxed_process_is_refused_before_anything_is_touched():
    child = subprocess.Popen([sys.executable, "-c", SANDBOX], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.read(6) == b"ready\n"
        inferior = FakeInferior(threads=1, pid=child.pid, local=True)
        inferior.all_threads[0].id = child.pid
        before = dict(inferior.all_threads[0].registers)

        with pytest.raises(IpbpError) as caught:
            inject.allocate(inferior, ARENA, PAGE, "rx")

        assert caught.value.code == "seccomp"
        assert inferior.all_threads[0].registers == before
    finally:
        child.kill()
        child.communicate()


# A filter of one instruction that allows everything: "return SECCOMP_RET_ALLOW" (seccomp(2)).
SANDBOX = """
import ctypes, struct, sys
libc = ctypes.CDLL(None)
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program) == 0
print("ready", flush=True)
sys.stdin.read()
"""
