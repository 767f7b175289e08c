"""AArch64: injected system calls leave nothing behind but their effect, and threads leave bytes that change."""

from __future__ import annotations

import pytest

from ipbp.host import inject, safepoint
from ipbp.host.abi import AARCH64, NOP
from ipbp.host.fake import CODE, LIBC_CODE, PAGE, FakeInferior

ARENA = 0x10000000
HANDLER = CODE + 0x200
SVC = LIBC_CODE + 16
CMN, LDR = (0xB13FFC1F).to_bytes(4, "little"), (0xF9400000).to_bytes(4, "little")  # cmn x0, #0xfff; ldr x0, [x0]


def fake(threads: int = 1) -> FakeInferior:
    return FakeInferior(threads=threads, triple="aarch64-linux-gnu")


def test_memory_appears_and_goes_and_registers_are_as_before() -> None:
    inferior = fake(threads=3)
    before = [dict(thread.registers) for thread in inferior.all_threads]
    inject.allocate(inferior, ARENA, 2 * PAGE, "rx")
    assert [(r.end - r.start, r.protection) for r in inferior.regions() if r.start == ARENA] == [(2 * PAGE, "rx")]
    inject.protect(inferior, ARENA, PAGE, "rw")
    inject.release(inferior, ARENA, 2 * PAGE)
    assert not [region for region in inferior.regions() if region.start == ARENA]
    assert [thread.registers for thread in inferior.all_threads] == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_that_cuts_in_returns_to_the_programs_own_state(when: str) -> None:
    inferior = fake()
    thread = inferior.all_threads[0]
    before = dict(thread.registers)
    thread.signals.append((HANDLER, when))
    inject.allocate(inferior, ARENA, PAGE, "rw")
    assert thread.registers["pc"] == HANDLER
    inferior.return_from_signal(thread, thread.registers["x2"])
    assert thread.registers == before


def test_a_step_may_take_the_next_instruction_along() -> None:
    inferior = fake()
    before = dict(inferior.all_threads[0].registers)
    step = inferior.step

    def steps_on(thread: int) -> None:
        step(thread)
        registers = inferior.thread(thread).registers
        if registers["pc"] == SVC + 4:
            registers.update(pc=SVC + 8, cpsr=0x8000_0000)

    inferior.step = steps_on  # type: ignore[method-assign]
    inject.allocate(inferior, ARENA, PAGE, "rw")
    assert inferior.all_threads[0].registers == before


@pytest.mark.parametrize(("behind", "is_used"), [(NOP, True), (CMN, True), (LDR, False)])
def test_a_call_is_made_only_where_what_follows_does_no_harm(behind: bytes, is_used: bool) -> None:
    inferior, places = fake(), []
    inferior.memory[LIBC_CODE][20:24] = behind
    set_registers = inferior.set_registers

    def seen(thread: int, values: dict[str, int]) -> None:
        places.append(values["pc"])
        set_registers(thread, values)

    inferior.set_registers = seen  # type: ignore[method-assign]
    code = bytes(inferior.memory[CODE])
    inject.allocate(inferior, ARENA, PAGE, "rw")
    assert (places[0] == SVC) is is_used
    assert bytes(inferior.memory[CODE]) == code


def test_what_looks_like_a_call_across_words_is_none() -> None:
    inferior = fake()
    inferior.memory[LIBC_CODE][16:20] = NOP
    inferior.memory[LIBC_CODE][34:38] = AARCH64.syscall
    inject.allocate(inferior, ARENA, PAGE, "rw")
    assert [region.start for region in inferior.regions() if region.start == ARENA] == [ARENA]


def test_a_thread_is_stepped_out_word_by_word() -> None:
    inferior = fake()
    entry = CODE + 0x100
    inferior.all_threads[0].registers["pc"] = entry + 4
    cleared = safepoint.clear(inferior, [(entry + 1, entry + 16)])
    assert cleared.moved == [inferior.all_threads[0].id]
    assert inferior.all_threads[0].registers["pc"] == entry + 16
