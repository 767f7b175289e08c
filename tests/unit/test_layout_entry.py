"""The entry jump: its encoding, and when it may not be written."""

from __future__ import annotations

import keystone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipbp.arch.entry import OldEntry
from ipbp.arch.x86_64_code import instructions
from ipbp.arch.x86_64_entry import ENDBR64, check_entry, jump, jump_place, stub

ENTRY = 0x5555_5555_5000


def _assemble(text: str, address: int = 0) -> bytes:
    encoding, _count = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(text, address, as_bytes=True)
    return bytes(encoding)


def _codes(code: bytes, after: bytes = b"") -> list[str]:
    return [refusal.code for refusal in check_entry(OldEntry("f", ENTRY, code, after))]


@given(st.integers(-(1 << 31) + 5, (1 << 31) + 4))
def test_a_jump_goes_where_it_should(distance: int) -> None:
    place = 1 << 40
    code = jump(place, place + distance)
    assert len(code) == 5
    assert code[0] == 0xE9
    assert place + 5 + int.from_bytes(code[1:], "little", signed=True) == place + distance


@pytest.mark.parametrize("distance", [0x1000, -0x1000, 0x7FFF_0000, -0x7FFF_0000])
def test_an_independent_assembler_encodes_the_same_jump(distance: int) -> None:
    assert jump(ENTRY, ENTRY + distance) == _assemble(f"jmp {ENTRY + distance:#x}", ENTRY)


def test_a_jump_one_past_its_reach_is_an_error_and_never_cut_off() -> None:
    with pytest.raises(OverflowError):
        jump(1 << 40, (1 << 40) + 5 + (1 << 31))


def test_a_stub_is_an_indirect_jump_through_its_slot() -> None:
    code = stub(ENTRY, ENTRY + 0x2006)
    assert code == _assemble("jmp qword ptr [rip + 0x2000]") + b"\xcc\xcc"


def test_endbr64_stays_first() -> None:
    assert [(row.size, row.mnemonic) for row in instructions(ENDBR64)] == [(4, "endbr64")]
    assert jump_place(ENTRY, ENDBR64 + bytes(8)) == ENTRY + 4
    assert jump_place(ENTRY, b"\x55" + ENDBR64) == ENTRY


def test_five_bytes_are_enough_and_four_are_not() -> None:
    five = _assemble("mov eax, 7")[:5]
    assert _codes(five) == []
    assert _codes(_assemble("xor eax, eax; nop; ret")) == ["entry-too-short"]


def test_with_endbr64_nine_bytes_are_needed() -> None:
    assert _codes(ENDBR64 + _assemble("mov eax, 7")) == []
    assert _codes(ENDBR64 + _assemble("mov al, 7; nop; ret")) == ["entry-too-short"]


@pytest.mark.parametrize("padding", [b"\x90" * 4, b"\xcc" * 4, bytes(4), b"\x0f\x1f\x40\x00", b"\x66\x90\x66\x90"])
def test_padding_after_a_short_function_counts(padding: bytes) -> None:
    assert _codes(b"\xc3", padding) == []
    assert _codes(b"\xc3", padding[:2]) == ["entry-too-short"]


def test_bytes_that_are_not_all_padding_do_not_count() -> None:
    assert _codes(b"\xc3", b"\x90\x90\x90\x90\x48\x83\xec\x08") == ["entry-too-short"]


@pytest.mark.parametrize(("label_at", "codes"), [(0, []), (1, ["entry-branch-target"]), (4, ["entry-branch-target"])])
def test_a_loop_back_into_the_first_bytes_is_refused_and_one_to_the_start_is_not(
    label_at: int, codes: list[str]
) -> None:
    code = _assemble("push rbx; dec edi; inc ecx; nop; nop; nop")
    code += bytes([0x75, (label_at - len(code) - 2) & 0xFF]) + b"\xc3"  # jne
    assert _codes(code) == codes


def test_a_loop_back_to_the_sixth_byte_is_fine() -> None:
    code = _assemble("push rbx; dec edi; inc ecx; nop; nop; nop")
    assert _codes(code + bytes([0x75, (5 - len(code) - 2) & 0xFF]) + b"\xc3") == []


def test_a_call_that_returns_into_the_first_bytes_is_refused() -> None:
    assert _codes(_assemble("push rbx; call rdi; pop rbx; ret; nop")) == ["entry-return-address"]
    assert _codes(_assemble("push rbx; push rbx; push rbx; call rdi; pop rbx; ret")) == []


def test_every_reason_is_told_at_once() -> None:
    assert _codes(bytes([0xFF, 0xD7, 0xEB, 0xFF])) == [
        "entry-too-short",
        "entry-branch-target",
        "entry-return-address",
    ]
