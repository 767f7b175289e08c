"""What linkers make of an instruction that uses a pointer cell, byte by byte; linkers that are not installed, too."""

from __future__ import annotations

import numpy as np
import pytest

from ipbp.arch.forms import Filled, Form
from ipbp.arch.x86_64_relax import read_fields
from ipbp.graph.edges import EdgeKind

PLAIN, X, REX, REX2 = (
    EdgeKind.GOT_PCREL32,
    EdgeKind.GOT_PCREL32_RELAX,
    EdgeKind.GOT_PCREL32_REX_RELAX,
    EdgeKind.GOT_PCREL32_REX2_RELAX,
)
N = "11223344"
ONE = 0x44332211
# kind, the instruction before its field, what stands in memory with N for the number, and what the number means.
KNOWN = {
    "mov, cell": (REX, "488b05", f"488b05{N}", Form.CELL),
    "mov -> lea": (REX, "4c8b3d", f"4c8d3d{N}", Form.PLACE),
    "mov -> lea without a hint (GNU ld, gold)": (PLAIN, "488b05", f"488d05{N}", Form.PLACE),
    "mov -> mov $imm": (REX, "4c8b3d", f"49c7c7{N}", Form.ABSOLUTE),
    "test -> test $imm": (REX, "4c853d", f"49f7c7{N}", Form.ABSOLUTE),
    "cmp -> cmp $imm": (REX, "4c3b3d", f"4981ff{N}", Form.ABSOLUTE),
    "call -> addr32 call": (X, "ff15", f"67e8{N}", Form.PLACE),
    "call -> nop; call (mold, ld -z call-nop=prefix-nop)": (X, "ff15", f"90e8{N}", Form.PLACE),
    "call -> call; nop": (X, "ff15", f"e8{N}90", Form.PLACE),
    "jmp -> jmp; nop": (X, "ff25", f"e9{N}90", Form.PLACE),
    "jmp -> nop; jmp (mold)": (X, "ff25", f"90e9{N}", Form.PLACE),
    "mov to r16 -> lea": (REX2, "d5488b05", f"d5488d05{N}", Form.PLACE),
    "mov to r24 -> mov $imm": (REX2, "d54c8b05", f"d519c7c0{N}", Form.ABSOLUTE),
    "add to r17 -> add $imm": (REX2, "d548030d", f"d51881c1{N}", Form.ABSOLUTE),
}
OTHER_CODE = {
    "another register": (REX, "488b05", f"488d0d{N}"),
    "another prefix": (REX, "488b05", f"4c8d05{N}"),
    "mov $imm without a hint": (PLAIN, "488b05", f"48c7c0{N}"),
    "a call that nothing hinted at": (PLAIN, "ff15", f"67e8{N}"),
    "jmp for call": (X, "ff15", f"90e9{N}"),
    "another operation": (REX, "4c3b3d", f"4981f7{N}"),
    "a register bit lost": (REX2, "d54c8b05", f"d518c7c0{N}"),
}


def columns(before: str, now: str) -> tuple[np.ndarray, np.ndarray, int]:
    old = bytes.fromhex(before)
    return np.frombuffer(old + bytes(4), np.uint8), np.frombuffer(bytes.fromhex(now), np.uint8), len(old)


def filled(expected: np.ndarray, actual: np.ndarray, at: int, kind: EdgeKind) -> Filled:
    position, addend, nothing = (np.array([value], dtype=np.int64) for value in (at, -4, 0))
    return Filled(expected, actual, position, position, np.array([kind], dtype=np.uint8), addend, nothing)


@pytest.mark.parametrize("case", KNOWN)
def test_a_known_rewriting_is_understood(case: str) -> None:
    kind, before, now, form = KNOWN[case]
    expected, actual, at = columns(before, now)
    found = read_fields(filled(expected, actual, at, kind))
    assert ((expected == actual) | found.masked).all()
    assert (Form(int(found.form[0])), int(found.number[0])) == (form, ONE)
    end = len(actual) - (1 if actual[-1] == 0x90 else 0)
    # S is the number and where it counts from: the end of the instruction, or nothing.
    assert int(found.position[0]) - int(found.addend[0]) == (end if form != Form.ABSOLUTE else at)


@pytest.mark.parametrize("case", OTHER_CODE)
def test_what_no_linker_writes_is_other_code(case: str) -> None:
    kind, before, now = OTHER_CODE[case]
    expected, actual, at = columns(before, now)
    found = read_fields(filled(expected, actual, at, kind))
    assert not ((expected == actual) | found.masked).all()
