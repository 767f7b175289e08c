"""AArch64: what is read from machine code."""

from __future__ import annotations

import pytest

from ipbp.arch.aarch64_code import changed_registers
from ipbp.arch.instructions import EVERYTHING


@pytest.mark.parametrize(
    ("word", "registers"),
    [
        (0x8B020020, {0}),  # add x0, x1, x2
        (0xF8E10062, {2}),  # ldaddal x1, x2, [x3]
        (0x88E0FC81, {0}),  # casal w0, w1, [x4]
        (0xF8A08081, {1}),  # swpa x0, x1, [x4]
        (0xF9000020, set()),  # str x0, [x1]
    ],
)
def test_registers_that_an_instruction_writes_are_changed(word: int, registers: set[int]) -> None:
    found, jumps = changed_registers(word.to_bytes(4, "little"))
    assert {number for number in registers if not found >> number & 1} == set()
    assert found != EVERYTHING
    assert not jumps
    if not registers:
        assert found == 0
