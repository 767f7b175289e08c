"""Who is in code that changes, where that is left, and how long it is waited for."""

from __future__ import annotations

import time

import pytest

from ipbp.errors import IpbpError
from ipbp.host.fake import CODE, FakeInferior
from ipbp.host.inferior import NotYet
from ipbp.host.old_code import Version
from ipbp.host.quiet_point import require_quiet_point

STEP = Version("step", CODE + 0x100, 1, CODE + 0x100, 0x40, False, True)
LOOP = Version("loop", CODE + 0x200, 1, CODE + 0x200, 0x40, False, True)


def make_inferior(pc: int, *returns: int) -> FakeInferior:
    """One thread there, with these return addresses, innermost first, on its stack and known to the debugger."""
    inferior = FakeInferior(threads=1)
    thread = inferior.all_threads[0]
    thread.registers["rip"] = pc
    for number, address in enumerate(returns):
        inferior.write(thread.registers["rsp"] + 8 * number, address.to_bytes(8, "little"))
    inferior.unwound[thread.id] = list(returns)
    return inferior


def wait_for(inferior: FakeInferior, seconds: float = 9.0) -> NotYet:
    with pytest.raises(NotYet) as raised:
        require_quiet_point(inferior, [STEP, LOOP], time.monotonic() + seconds, True)
    return raised.value


def test_nobody_inside_is_quiet() -> None:
    require_quiet_point(make_inferior(CODE + 0x10, CODE + 0x20), [STEP, LOOP], 0.0, True)
    # At its first byte a thread has not begun the old code: it will run the jump.
    require_quiet_point(make_inferior(STEP.address, CODE + 0x20), [STEP], 0.0, True)
    require_quiet_point(make_inferior(STEP.address + 4), [], 0.0, True)


@pytest.mark.parametrize(
    ("pc", "returns", "exits"),
    [
        (STEP.address + 4, (CODE + 0x20,), (CODE + 0x20,)),
        (CODE + 0x10, (STEP.address + 9, CODE + 0x20), (CODE + 0x20,)),
        (STEP.address + 4, (CODE + 0x20, LOOP.address + 3, CODE + 0x30), (CODE + 0x30,)),
        (CODE + 0x10, (LOOP.address + 3,), ()),
    ],
    ids=["innermost", "in a call", "outermost of several", "never returns"],
)
def test_it_is_waited_where_the_outermost_of_these_frames_returns_to(
    pc: int, returns: tuple[int, ...], exits: tuple[int, ...]
) -> None:
    raised = wait_for(make_inferior(pc, *returns))
    assert raised.addresses == exits
    assert 0 < raised.seconds <= 0.5


def test_a_word_that_was_left_on_the_stack_is_nobody() -> None:
    inferior = make_inferior(CODE + 0x10, STEP.address + 9, CODE + 0x20)
    inferior.unwound[inferior.all_threads[0].id] = [CODE + 0x20]
    require_quiet_point(inferior, [STEP], 0.0, True)


@pytest.mark.parametrize(
    ("before", "exits"),
    [
        (b"\xe8\0\0\0\0", (STEP.address + 9,)),
        (b"\xff\x15\0\0\0\0", (STEP.address + 9,)),
        (b"\x90\xff\xd2", (STEP.address + 9,)),
        (b"\x90" * 6, ()),
    ],
    ids=["call", "call of a pointer cell", "call of a register", "no call"],
)
def test_where_the_debugger_gets_no_further_a_word_counts(before: bytes, exits: tuple[int, ...]) -> None:
    inferior = make_inferior(CODE + 0x10, CODE + 0x20, STEP.address + 9, CODE + 0x30)
    inferior.unwound[inferior.all_threads[0].id] = [CODE + 0x20]
    inferior.write(STEP.address + 9 - len(before), before)
    raised = wait_for(inferior)
    assert raised.addresses == exits
    assert "is in 'step'" in raised.fact


@pytest.mark.parametrize(("runs", "advice"), [(True, "--timeout"), (False, "`finish`")])
def test_when_the_time_is_up_the_threads_and_their_functions_are_named(runs: bool, advice: str) -> None:
    inferior = make_inferior(STEP.address + 4, LOOP.address + 3, CODE + 0x20)
    deadline = time.monotonic() + (-1.0 if runs else 9.0)
    with pytest.raises(IpbpError) as raised:
        require_quiet_point(inferior, [STEP, LOOP], deadline, runs)
    assert not isinstance(raised.value, NotYet)
    assert raised.value.code == "quiet-point"
    for name in ("'step'", "'loop'"):
        assert f"thread {inferior.all_threads[0].id} is in {name}" in raised.value.fact
    assert advice in raised.value.advice
