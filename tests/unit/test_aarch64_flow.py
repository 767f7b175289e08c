"""AArch64: what instructions take and give in functions without optimisation; other functions are not told."""

from __future__ import annotations

import numpy as np
import pytest
from objects_from_c import compiled

from ipbp.arch.aarch64_flow import FLOW
from ipbp.arch.flow import Step, reachable
from ipbp.formats.elf_object import read_object
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import BlockKind

HEAD = "stp x29, x30, [sp, #-48]!; mov x29, sp; "
TAIL = "ldp x29, x30, [sp], #48; ret"


def code_of(text: str) -> bytes:
    lines = [".text", ".globl f", ".type f, %function", "f:", *text.split("; "), ".size f, .-f", ""]
    graph = read_object(compiled("\n".join(lines), "aarch64-linux-gnu-gcc", (), "unit.s"), "unit.o")
    (block,) = np.flatnonzero(graph.blocks.kind == BlockKind.CODE).tolist()
    return bytes(graph.content(block))


def steps_of(text: str) -> list[Step] | None:
    return FLOW.steps(code_of(text))


def only(body: str) -> Step:
    found = steps_of(HEAD + body + "; " + TAIL)
    assert found is not None
    return found[2]


@pytest.mark.parametrize(
    ("body", "takes", "gives"),
    [
        ("mov w1, w0", {"x0"}, {"x1"}),
        ("cmp w1, #3", {"x1"}, {"flags"}),
        ("cmp w1, w2", {"x1", "x2"}, {"flags"}),
        ("cset w0, eq", {"flags"}, {"x0"}),
        ("add x0, sp, #24", set(), {"x0", 24}),
        ("add x0, x29, #24", set(), {"x0", 24}),
        ("str x3, [sp, #40]", {"x3"}, {40}),
        ("str x3, [x29, #40]", {"x3"}, {40}),
        ("ldp w3, w4, [sp, #32]", {32, 36}, {"x3", "x4"}),
        ("str w1, [x0]", {"x0", "x1"}, set()),
        ("fmov d0, #1.5", set(), {"v0"}),
        ("str s2, [x0, x1]", {"x0", "x1", "v2"}, set()),
        ("movk x0, #1, lsl #16", {"x0"}, {"x0"}),
    ],
)
def test_registers_and_places_in_the_frame_are_told(body: str, takes: set[str | int], gives: set[str | int]) -> None:
    step = only(body)
    assert (step.takes, step.gives, step.is_call, step.frames) == (takes, gives, False, False)


def test_a_call_leaves_nothing_in_registers_that_are_not_saved() -> None:
    step = only("bl f")
    assert step.is_call
    assert {"x0", "x18", "v0", "v31", "flags"} <= step.gives
    assert not step.gives & FLOW.saved


def test_places_count_from_one_register_where_x29_is_above_the_other() -> None:
    head = "sub sp, sp, #64; stp x29, x30, [sp, #16]; add x29, sp, #16; "
    found = steps_of(head + "str x1, [x29, #8]; ldr x2, [sp, #24]; ldp x29, x30, [sp, #16]; add sp, sp, #64; ret")
    assert found is not None
    assert [step.frames for step in found] == [True, True, True, False, False, True, True, True]
    assert found[3].gives == {24}
    assert found[4].takes == {24}


@pytest.mark.parametrize(
    "body",
    [
        "sub sp, sp, #16",
        "mov x29, x0",
        "str x0, [sp, x1]",
        "add x0, sp, x1",
        "str x0, [sp, #-16]!",
        "ldxr w0, [sp]",
        ".word 0xffffffff",
        "stp x19, x20, [sp, #-16]!",
    ],
)
def test_a_frame_of_another_kind_is_not_told(body: str) -> None:
    assert steps_of(HEAD + "nop; " + body + "; " + TAIL) is None


def test_a_frame_pointer_that_was_set_before_the_frame_was_whole_is_not_counted_from() -> None:
    late = "stp x29, x30, [sp, #-48]!; mov x29, sp; sub sp, sp, #32; "
    assert steps_of(late + "str x0, [x29, #16]; mov sp, x29; " + TAIL) is None
    assert steps_of(late + "str x0, [sp, #16]; mov sp, x29; " + TAIL) is not None


ASKED = HEAD + "str w0, [sp, #28]; str w1, [sp, #24]; ldr w0, [sp, #28]; cmp w0, #1; b.ne 1f; {}; 1: nop; " + TAIL


@pytest.mark.parametrize(
    ("body", "asking"),
    [
        ("nop", [2, 3, 4, 5, 6]),
        ("ldr w1, [sp, #24]; mov w0, #65535; cmp w1, w0; b.ne 1f", range(2, 11)),
        ("ldr w1, [sp, #24]; str w1, [x0]", None),
        ("ldr w1, [sp, #24]; bl f; cmp w1, #1; b.ne 1f", None),
        ("str w2, [sp, #24]", None),
    ],
)
def test_questions_for_the_arguments_are_told_or_nothing_is(body: str, asking: list[int] | None) -> None:
    code = code_of(ASKED.format(body))
    rows = FLOW.steps(code)
    assert rows is not None
    found = FLOW.asking(list(reachable(rows)), code)
    assert (None if found is None else sorted(found)) == (None if asking is None else [4 * row for row in asking])


def test_a_call_is_taken_out_and_a_jump_leads_over() -> None:
    code = code_of("nop; bl f; b f")
    assert FLOW.without_call(code, EdgeKind.BRANCH26, 4) == code_of("nop; nop; b f")
    assert FLOW.without_call(code, EdgeKind.BRANCH26, 8) is None
    assert code[:4] + FLOW.jump(4, 0) + code[8:] == code_of("nop; b .-4; b f")
