"""AArch64: injected system calls leave nothing behind but their effect, and threads leave bytes that change."""

from __future__ import annotations

import pytest

from ipbp.errors import IpbpError
from ipbp.host import inject, safepoint
from ipbp.host.abi import AARCH64, NOP
from ipbp.host.fake import CODE, LIBC_CODE, PAGE, FakeInferior
from ipbp.host.quiet import require_quiet
from ipbp.protocol import Quiet

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


def test_return_addresses_are_known_with_a_signature_and_in_the_link_register() -> None:
    inferior = fake(threads=3)
    in_link, on_stack, elsewhere = inferior.all_threads
    caller, signature = CODE + 0x104, 0x2A << 48
    in_link.registers.update(x30=caller | signature)
    inferior.write(on_stack.registers["sp"] + 16, (caller | signature).to_bytes(8, "little"))
    assert safepoint.users(inferior, [(CODE + 0x101, CODE + 0x110)]) == [in_link.id, on_stack.id]
    # Where the address space is smaller, so that signatures have more bits, the processor says so.
    elsewhere.registers.update(x30=caller | 1 << 45, pauth_cmask=1 << 47 | 1 << 45)
    assert safepoint.users(inferior, [(CODE + 0x101, CODE + 0x110)]) == [row.id for row in inferior.all_threads]
    assert [stack.link for stack in safepoint.stacks(inferior)][::2] == [caller, caller]


def test_a_thread_that_the_kernel_has_yet_to_give_a_result_makes_no_call() -> None:
    inferior = fake(threads=2)
    forking, other = inferior.all_threads
    forking.registers["pc"] = SVC + 4
    inferior.interrupted_call = lambda number: 220 if number == forking.id else None  # type: ignore[method-assign]
    before = dict(forking.registers)
    forking.signals.append((HANDLER, "before"))  # which it would go to, if it were let go
    inject.allocate(inferior, ARENA, PAGE, "rw")
    assert forking.registers == before
    assert len(forking.signals) == 1
    other.registers["pc"] = SVC + 4
    inject.allocate(inferior, ARENA + PAGE, PAGE, "rw")  # behind a call that is over
    assert forking.registers == before


def test_a_word_is_come_back_to_where_a_call_stands_before_it() -> None:
    """The address of a function, and of a file that is mapped, may be left over on a stack."""
    held, stack_word = (LIBC_CODE + 0x100, LIBC_CODE + 0x200), LIBC_CODE + 0x140
    inferior = fake()
    thread = inferior.all_threads[0]
    inferior.write(thread.registers["sp"] + 64, stack_word.to_bytes(8, "little"))
    require_quiet(inferior, Quiet(held=(held,)))
    for call in (0x94000010, 0xD63F0100, 0xD63F0BFF):  # bl; blr x8; blraaz
        inferior.write(stack_word - 4, call.to_bytes(4, "little"))
        with pytest.raises(IpbpError) as caught:
            require_quiet(inferior, Quiet(held=(held,)))
        assert caught.value.code == "program-busy"
    inferior.write(thread.registers["sp"] + 64, held[0].to_bytes(8, "little"))
    require_quiet(inferior, Quiet(held=(held,)))
