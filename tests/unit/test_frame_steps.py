"""The selected frame goes on where the engine said, or everything is as it was."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from ipbp.errors import IpbpError, Refused
from ipbp.host import frames
from ipbp.host.fake import MASK, STACKS, FakeInferior
from ipbp.host.inferior import HANDLER, Frame
from ipbp.host.rollback import Steps
from ipbp.host.words import parse
from ipbp.protocol import FrameMove

CFA = STACKS + 0x200
OLD, NEW, CALLER_RBX, CALLER_RBP = 0x400123, 0x10000040, 77, STACKS + 0x300
RESTART = FrameMove(
    "f",
    "restart",
    NEW,
    "rbp",
    16,
    -8,
    (("rbp", -16), ("rbx", -24)),
    (("rdi", -32, 8), ("rsi", -36, 4), ("xmm0", -48, 8)),
)
REMAP = FrameMove("f", "remap", NEW, "rbp", 16, -64)


def make_inferior(level: int = 0, fault: str = "") -> FakeInferior:
    inferior = FakeInferior(threads=1)
    thread = inferior.all_threads[0]
    thread.registers.update(rip=OLD, rbp=CFA - 16, rsp=CFA - 48, rbx=5, rax=-512 & MASK, orig_rax=7)
    for place, value in ((-16, CALLER_RBP), (-24, CALLER_RBX), (-32, 1111), (-40, 2222 << 32), (-48, 3333)):
        inferior.write(CFA + place, value.to_bytes(8, "little"))
    names = ("rbx", "rbp", "rsp", "r12", "r13", "r14", "r15", "rip")
    registers = dict(thread.registers) if level == 0 else {name: thread.registers[name] for name in names}
    if level:
        thread.registers.update(rip=0x400900, rsp=CFA - 200, rbx=6)
        inferior.write(CFA - 56, OLD.to_bytes(8, "little"))
    inferior.selected = Frame(thread.id, level, registers, ("inner",) * level, fault)
    return inferior


def go_on(inferior: FakeInferior, move: FrameMove, words: str) -> None:
    frame = frames.selected(inferior, parse(words))
    assert frame is not None
    answer = {"frame": vars(move), "notes": []}
    outcome = frames.GoingOn(inferior, frame, parse(words), answer).alone()
    outcome["then"]()
    assert outcome["frame"]["address"] == NEW


def test_a_call_begins_again_as_its_caller_called_it() -> None:
    inferior = make_inferior()
    go_on(inferior, RESTART, "--frame restart")
    registers = inferior.all_threads[0].registers
    assert (registers["rip"], registers["rsp"]) == (NEW, CFA - 8)
    assert (registers["rbp"], registers["rbx"]) == (CALLER_RBP, CALLER_RBX)
    assert (registers["rdi"], registers["rsi"]) == (1111, 2222)
    assert inferior.all_threads[0].vectors == {"xmm0": 3333}
    assert inferior.forgotten == [inferior.all_threads[0].id]


def test_a_call_goes_on_with_its_frame() -> None:
    inferior = make_inferior()
    before = dict(inferior.all_threads[0].registers)
    go_on(inferior, REMAP, "--frame remap")
    assert inferior.all_threads[0].registers == {**before, "rip": NEW, "rsp": CFA - 64}


@pytest.mark.parametrize("level", [0, 1])
def test_variables_are_moved_at_once(level: int) -> None:
    """Two that change places, and one that goes below the stack as it was."""
    inferior = make_inferior(level)
    move = replace(REMAP, copies=((-32, -40, 8), (-40, -32, 8), (-48, -120, 8)))
    go_on(inferior, move, "--frame remap")
    read = [int.from_bytes(inferior.read(CFA + place, 8), "little") for place in (-32, -40, -120)]
    assert read == [2222 << 32, 1111, 3333]


def test_a_frame_that_waits_in_a_call_gets_another_return_address() -> None:
    inferior = make_inferior(level=1)
    before = dict(inferior.all_threads[0].registers)
    go_on(inferior, REMAP, "--frame remap")
    assert inferior.all_threads[0].registers == before
    assert inferior.read(CFA - 56, 8) == NEW.to_bytes(8, "little")
    assert inferior.forgotten == []


def test_calls_are_dropped_with_consent_and_their_system_call_is_not_made_again() -> None:
    inferior = make_inferior(level=1, fault="SIGABRT")
    with pytest.raises(Refused) as refused:
        frames.selected(inferior, parse("--frame remap"))
    assert [row.code for row in refused.value.refusals] == ["frame-unwinds"]
    go_on(inferior, REMAP, "--frame remap --unwind")
    registers = inferior.all_threads[0].registers
    assert (registers["rip"], registers["rsp"], registers["rbx"]) == (NEW, CFA - 64, 5)
    assert registers["orig_rax"] == MASK
    assert registers["rax"] == 0


@pytest.mark.parametrize("words", ["--frame restart", "--frame restart --current-arguments"])
def test_a_frame_up_the_stack_begins_again_with_consent_only(words: str) -> None:
    with pytest.raises(Refused):
        frames.selected(make_inferior(level=1), parse(words))
    assert frames.selected(make_inferior(level=1), parse(f"{words} --unwind")) is not None


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize(
    ("level", "move", "words"),
    [
        (0, RESTART, "--frame restart"),
        (0, REMAP, "--frame remap"),
        (1, REMAP, "--frame remap"),
        (0, replace(REMAP, copies=((-32, -40, 8), (-40, -32, 8))), "--frame remap"),
    ],
)
def test_what_fails_leaves_the_frame_as_it_was(level: int, move: FrameMove, words: str, how: str) -> None:
    for step in range(1, 20):
        inferior = make_inferior(level)
        before, memory = dict(inferior.all_threads[0].registers), inferior.snapshot()
        going_on = frames.GoingOn(inferior, inferior.selected, parse(words), {"frame": vars(move), "notes": []})
        inferior.fail(step, how)
        try:
            going_on.alone()
        except IpbpError as error:
            said = error.fact
        else:
            assert step > 1
            return
        assert "rolled back" in said
        assert inferior.all_threads[0].registers == before
        assert inferior.snapshot() == memory
        assert not any(inferior.all_threads[0].vectors.values())
    raise AssertionError("it never came through")


def test_a_thread_that_was_moved_meanwhile_is_left_alone() -> None:
    inferior = make_inferior()
    going_on = frames.GoingOn(inferior, inferior.selected, parse("--frame remap"), {"frame": vars(REMAP), "notes": []})
    inferior.all_threads[0].registers["rip"] += 1
    with pytest.raises(IpbpError) as error:
        going_on.step(Steps(inferior))
    assert error.value.code == "frame-moved"


def test_a_frame_that_a_signal_interrupted_is_refused() -> None:
    inferior = make_inferior(level=1)
    assert inferior.selected is not None
    inferior.selected = replace(inferior.selected, above=("handler", HANDLER))
    for words in ("--frame remap", "--frame remap --unwind", "--frame restart --unwind"):
        with pytest.raises(Refused) as refused:
            frames.selected(inferior, parse(words))
        assert "handler is running" in refused.value.refusals[0].fact
    assert frames.offered_for(inferior, parse("")) is None


@pytest.mark.parametrize("words", ["object a.o b.o", "--plan p.json", "status"])
def test_only_who_types_hotpatch_is_offered_something(words: str) -> None:
    assert frames.offered_for(make_inferior(), parse(words)) is None
    assert frames.offered_for(make_inferior(), parse("")) is not None


def test_old_is_what_happens_without_a_word() -> None:
    inferior = make_inferior()
    inferior.selected = None
    assert frames.selected(inferior, parse("")) is None
    assert frames.selected(inferior, parse("--frame old")) is None
    assert frames.selected(inferior, argparse.Namespace()) is None
