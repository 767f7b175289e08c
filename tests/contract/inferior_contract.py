"""What every Inferior promises, as checks that run anywhere: in pytest on the fake, and inside gdb and lldb.

Standard library only, Python 3.9. A check takes a `Subject` and raises when a promise is broken; it leaves the
inferior as it found it, so that they may run in any order.
"""

# ruff: noqa: UP035, UP045, B905, RUF007, PT017

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Callable, Optional

from ipbp.errors import IpbpError
from ipbp.host import inject, safepoint
from ipbp.host.inferior import Inferior
from ipbp.protocol import Region

PAGE = 4096
MASK = (1 << 64) - 1
COUNTER = 0x1122334455667788


@dataclass(frozen=True)
class Subject:
    """A stopped inferior and what is known of its program.

    `entry`: address of a function of at least 16 bytes that no thread is in, `code`: its first 16 bytes in the file;
    it has an instruction boundary at `entry + inner` (0 < inner < 16). `counter`: address of an 8-byte variable with
    the value COUNTER. `add`: address of `unsigned long add(unsigned long, unsigned long)`. `threads`: how many there
    are. `break_at`: sets an enabled user breakpoint at an address and returns a function that deletes it.
    """

    inferior: Inferior
    entry: int
    code: bytes
    inner: int
    counter: int
    add: int
    threads: int
    break_at: Callable[[int], Callable[[], None]]


def says_what_it_is(subject: Subject) -> None:
    description = subject.inferior.describe()
    assert description.stopped
    assert description.triple.startswith("x86_64"), description.triple
    assert description.executable.startswith("/"), description.executable


def lists_regions_in_order(subject: Subject) -> None:
    regions = subject.inferior.regions()
    assert all(one.end <= other.start for one, other in zip(regions, regions[1:]))
    assert all(one.start < one.end for one in regions)
    code = _region(subject, subject.entry)
    assert code.protection == "rx", code
    assert _region(subject, subject.counter).protection == "rw"


def lists_every_thread_with_its_pc(subject: Subject) -> None:
    threads = subject.inferior.threads()
    assert len(threads) == subject.threads, threads
    assert len({thread.id for thread in threads}) == len(threads)
    for thread in threads:
        assert subject.inferior.registers(thread.id, ("rip",)) == {"rip": thread.pc}


def reads_code_and_data(subject: Subject) -> None:
    assert subject.inferior.read(subject.entry, len(subject.code)) == subject.code
    assert subject.inferior.read(subject.counter, 8) == COUNTER.to_bytes(8, "little")
    assert subject.inferior.read(subject.counter, 0) == b""


def refuses_to_read_what_is_not_mapped(subject: Subject) -> None:
    end = _region_end(subject, subject.counter)
    for address in (end, end - 4, 0):
        _expect("inferior-memory", lambda at=address: subject.inferior.read(at, 8))  # type: ignore[misc]


def writes_code_that_is_not_writable(subject: Subject) -> None:
    inferior = subject.inferior
    changed = bytes(byte ^ 0xFF for byte in subject.code)
    inferior.write(subject.entry, changed)
    try:
        assert inferior.read(subject.entry, len(changed)) == changed
    finally:
        inferior.write(subject.entry, subject.code)
    assert inferior.read(subject.entry, len(changed)) == subject.code


def writes_one_byte_without_its_neighbours(subject: Subject) -> None:
    inferior = subject.inferior
    inferior.write(subject.counter + 3, b"\xee")
    try:
        assert inferior.read(subject.counter, 8) == bytes.fromhex("887766ee44332211")
    finally:
        inferior.write(subject.counter, COUNTER.to_bytes(8, "little"))


def writes_several_places_in_order(subject: Subject) -> None:
    inferior = subject.inferior
    changed = bytes(byte ^ 0xFF for byte in subject.code)
    inferior.write_all([])
    inferior.write_all([(subject.counter, b"\x01"), (subject.entry, changed), (subject.counter, b"\x02")])
    try:
        assert inferior.read(subject.entry, len(changed)) == changed
        assert inferior.read(subject.counter, 8) == bytes.fromhex("0277665544332211")
        nowhere = _region_end(subject, subject.counter)
        rows = [(subject.counter, b"\x03"), (nowhere, b"\x04"), (subject.counter, b"\x05")]
        _expect("inferior-memory", lambda: inferior.write_all(rows))
        assert inferior.read(subject.counter, 1) == b"\x03"
    finally:
        inferior.write_all([(subject.entry, subject.code), (subject.counter, COUNTER.to_bytes(8, "little"))])


def registers_are_unsigned_and_can_be_set(subject: Subject) -> None:
    inferior = subject.inferior
    thread = inferior.threads()[0].id
    names = ("rax", "rbx", "r8", "r15", "rsp", "rip", "eflags", "orig_rax")
    before = inferior.registers(thread, names)
    assert set(names) - set(before) <= {"orig_rax"}
    assert all(0 <= value <= MASK for value in before.values()), before
    changed = {"rbx": MASK, "r8": 1 << 63, "r15": 0}
    saved = {name: inferior.registers(thread, (name,))[name] for name in changed}
    inferior.set_registers(thread, changed)
    try:
        assert inferior.registers(thread, tuple(changed)) == changed
    finally:
        inferior.set_registers(thread, saved)
    assert inferior.registers(thread, names) == before


def vector_registers_can_be_set(subject: Subject) -> None:
    inferior = subject.inferior
    thread = inferior.threads()[0].id
    before = inferior.vectors(thread, ("xmm0", "xmm1", "xmm15"))
    changed = {"xmm0": (1 << 127) + 5, "xmm15": 7}
    inferior.set_vectors(thread, changed)
    try:
        assert inferior.vectors(thread, changed) == changed
        assert inferior.vectors(thread, ("xmm1",)) == {"xmm1": before["xmm1"]}
    finally:
        inferior.set_vectors(thread, before)
    assert inferior.vectors(thread, before) == before


def extended_state_has_the_vector_registers(subject: Subject) -> None:
    inferior = subject.inferior
    thread = inferior.threads()[0].id
    state = inferior.extended_state(thread)
    assert state or subject.inferior.describe().debugger == "fake", "a processor without AVX?"
    if state:  # xmm0 is 160 bytes into it (Intel SDM vol. 1, 10.5.1)
        wanted = inferior.vectors(thread, ("xmm0", "xmm15"))
        found = {"xmm0": state[160:176], "xmm15": state[400:416]}
        assert {name: int.from_bytes(content, "little") for name, content in found.items()} == wanted
        assert len(state) > 576


def register_bytes_hold_every_register(subject: Subject) -> None:
    inferior = subject.inferior
    for thread in inferior.threads():
        content = inferior.register_bytes(thread.id)
        for value in inferior.registers(thread.id, ("rsp", "rip", "r12")).values():
            assert value.to_bytes(8, "little") in content, hex(value)
    thread = inferior.threads()[0].id
    before = inferior.vectors(thread, ("xmm5",))
    inferior.set_vectors(thread, {"xmm5": 0x1122334455667788 << 64 | 0x99})
    try:
        assert bytes.fromhex("99000000000000008877665544332211") in inferior.register_bytes(thread)
    finally:
        inferior.set_vectors(thread, before)


def tells_what_the_kernel_keeps(subject: Subject) -> None:
    kept = subject.inferior.kept_words(60.0)  # the program has neither a timer nor epoll
    assert kept == ([] if subject.inferior.describe().debugger != "fake" else None)


def steps_one_thread_and_no_other(subject: Subject) -> None:
    # Over the start of a function and back: one instruction, wherever the thread really is. It may push, so its
    # stack begins below the red zone.
    inferior = subject.inferior
    thread = inferior.threads()[0].id
    saved = _all_registers(inferior, thread)
    call = _call_of(inferior, thread)
    others = [other for other in inferior.threads() if other.id != thread]
    moved = {"rip": subject.entry, "rax": 1, "rsp": saved["rsp"] - 1024}
    if "orig_rax" in saved:
        moved["orig_rax"] = MASK
    inferior.set_registers(thread, moved)
    try:
        inferior.step(thread)
        pc = inferior.registers(thread, ("rip",))["rip"]
        assert subject.entry < pc < subject.entry + 16, hex(pc)
        assert [other for other in inferior.threads() if other.id != thread] == others
    finally:
        inferior.set_registers(thread, _state_to_restore(saved, call))


def calls_a_function_and_leaves_no_trace(subject: Subject) -> None:
    inferior = subject.inferior
    before = {thread.id: _all_registers(inferior, thread.id) for thread in inferior.threads()}
    assert inferior.call(subject.add, (40, 2)) == 42
    assert inferior.call(subject.add, ((1 << 63), 5)) & MASK == (1 << 63) + 5
    assert {thread.id: _all_registers(inferior, thread.id) for thread in inferior.threads()} == before


def hides_a_breakpoint_in_the_bytes(subject: Subject) -> None:
    with _Breakpoint(subject, subject.entry):
        assert subject.inferior.read(subject.entry, len(subject.code)) == subject.code


def disarms_breakpoints_inside_ranges_only(subject: Subject) -> None:
    inferior = subject.inferior
    with _Breakpoint(subject, subject.entry), _Breakpoint(subject, subject.entry + subject.inner):
        found = inferior.disarm([(subject.entry + 1, subject.entry + 16)])
        assert [point.address for point in found] == [subject.entry + subject.inner]
        rest = inferior.disarm([(subject.entry, subject.entry + 16)])
        assert [point.address for point in rest] == [subject.entry]
        assert inferior.disarm([(subject.entry, subject.entry + 16)]) == []
        inferior.rearm(found + rest)
        both = inferior.disarm([(subject.entry, subject.entry + 16)])
        assert sorted(point.address for point in both) == [subject.entry, subject.entry + subject.inner]
        inferior.rearm(both)
        inferior.rearm(both)  # once more changes nothing


def writes_where_a_breakpoint_was_disarmed(subject: Subject) -> None:
    inferior = subject.inferior
    jump = b"\xe9\x00\x00\x00\x00"  # jmp  entry+5
    with _Breakpoint(subject, subject.entry):
        points = inferior.disarm([(subject.entry, subject.entry + len(jump))])
        inferior.write(subject.entry, jump)
        inferior.rearm(points)
        assert inferior.read(subject.entry, len(jump)) == jump
        inferior.disarm([(subject.entry, subject.entry + len(jump))])
        inferior.write(subject.entry, subject.code)
        inferior.rearm(points)
        assert inferior.read(subject.entry, len(subject.code)) == subject.code
    assert inferior.read(subject.entry, len(subject.code)) == subject.code


def maps_memory_at_the_address_asked_for(subject: Subject) -> None:
    inferior = subject.inferior
    before = {thread.id: _all_registers(inferior, thread.id) for thread in inferior.threads()}
    calls = {thread.id: _call_of(inferior, thread.id) for thread in inferior.threads()}
    address = _hole(subject, 16 * PAGE)
    inject.allocate(inferior, address, 4 * PAGE, "rx")
    try:
        assert inject.is_mapped(inferior.regions(), address, 4 * PAGE, "rx")
        assert inferior.read(address, 4 * PAGE) == bytes(4 * PAGE)
        inferior.write(address + 100, b"code")
        assert inferior.read(address + 100, 4) == b"code"
        _expect("inject-address-taken", lambda: inject.allocate(inferior, address + PAGE, PAGE, "rw"))
        inject.protect(inferior, address, PAGE, "r")
        assert inject.is_mapped(inferior.regions(), address, PAGE, "r")
    finally:
        inject.release(inferior, address, 4 * PAGE)
    assert not any(r.start < address + 4 * PAGE and address < r.end for r in inferior.regions())
    after = {thread.id: _all_registers(inferior, thread.id) for thread in inferior.threads()}
    for thread, registers in after.items():
        assert registers == before[thread] or _restarts(registers, before[thread], calls[thread]), registers


def refuses_what_the_kernel_refuses(subject: Subject) -> None:
    _expect("inject-failed", lambda: inject.protect(subject.inferior, _hole(subject, PAGE), PAGE, "r"))


def finds_no_thread_where_none_is(subject: Subject) -> None:
    assert safepoint.clear(subject.inferior, [(subject.entry + 1, subject.entry + 5)]).moved == []


def runs_an_action_while_stopped(subject: Subject) -> None:
    told: list[object] = []
    subject.inferior.while_stopped(lambda: told.append(subject.inferior.describe().stopped), told.append)
    assert told == [True, 0.0], told


CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        says_what_it_is,
        lists_regions_in_order,
        lists_every_thread_with_its_pc,
        reads_code_and_data,
        refuses_to_read_what_is_not_mapped,
        writes_code_that_is_not_writable,
        writes_one_byte_without_its_neighbours,
        writes_several_places_in_order,
        registers_are_unsigned_and_can_be_set,
        vector_registers_can_be_set,
        extended_state_has_the_vector_registers,
        register_bytes_hold_every_register,
        tells_what_the_kernel_keeps,
        steps_one_thread_and_no_other,
        calls_a_function_and_leaves_no_trace,
        hides_a_breakpoint_in_the_bytes,
        disarms_breakpoints_inside_ranges_only,
        writes_where_a_breakpoint_was_disarmed,
        maps_memory_at_the_address_asked_for,
        refuses_what_the_kernel_refuses,
        finds_no_thread_where_none_is,
        runs_an_action_while_stopped,
    )
}


def run_all(subject: Subject) -> dict[str, str]:
    """For each check "" or the traceback of its failure: what a driver inside a debugger prints as JSON."""
    results = {}
    for name, check in CHECKS.items():
        try:
            check(subject)
            results[name] = ""
        except Exception:  # the point is to tell of every one
            results[name] = traceback.format_exc()
    return results


class _Breakpoint:
    def __init__(self, subject: Subject, address: int) -> None:
        self._subject, self._address = subject, address

    def __enter__(self) -> None:
        self._delete = self._subject.break_at(self._address)

    def __exit__(self, *unused: object) -> None:
        self._delete()


def _expect(code: str, act: Callable[[], object]) -> None:
    try:
        act()
    except IpbpError as error:
        assert error.code == code, error
        return
    raise AssertionError(f"no {code}")


def _region(subject: Subject, address: int) -> Region:
    return next(region for region in subject.inferior.regions() if region.start <= address < region.end)


def _region_end(subject: Subject, address: int) -> int:
    # Of the run of mappings without a gap that the address is in.
    end = _region(subject, address).end
    for region in subject.inferior.regions():
        if region.start == end:
            end = region.end
    return end


def _hole(subject: Subject, size: int) -> int:
    # Beyond the heap that may follow the program's data, and in reach of a 32-bit jump.
    regions = subject.inferior.regions()
    address = _region_end(subject, subject.counter) + (256 << 20)
    while any(region.start < address + size and address < region.end for region in regions):
        address += 1 << 20
    return address & ~(PAGE - 1)


def _all_registers(inferior: Inferior, thread: int) -> dict[str, int]:
    general = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "eflags", "orig_rax")
    return inferior.registers(thread, (*general, *(f"r{number}" for number in range(8, 16))))


def _call_of(inferior: Inferior, thread: int) -> Optional[int]:
    rax = inferior.registers(thread, ("rax",))["rax"]
    return inferior.interrupted_call(thread) if rax > MASK - 4095 else None


def _restarts(registers: dict[str, int], before: dict[str, int], call: Optional[int]) -> bool:
    # Where orig_rax is hidden, an interrupted call is repeated by hand: the same, two bytes earlier.
    moved = {"rip", "rax"}
    same = all(registers[name] == before[name] for name in before if name not in moved)
    return same and registers["rip"] == before["rip"] - 2 and registers["rax"] in (call, 219)


def _state_to_restore(saved: dict[str, int], call: Optional[int]) -> dict[str, int]:
    # A step loses the number of an interrupted call; where that cannot be put back, the call is repeated by hand.
    if call is None or "orig_rax" in saved:
        return saved
    return {**saved, "rip": saved["rip"] - 2, "rax": 219 if saved["rax"] == MASK - 515 else call}
