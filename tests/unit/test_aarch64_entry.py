"""AArch64: the jump over an entry, near and far, behind landing pads; what keeps it from being written."""

from __future__ import annotations

import capstone
import numpy as np
import pytest

from ipbp.arch.aarch64_code import is_padding
from ipbp.arch.aarch64_entry import BRANCH_REACH, check_entry, jump, jump_again, jump_place, stub
from ipbp.arch.entry import OldEntry
from ipbp.arch.fields import clear_fields, out_of_range, part_of_word, write_fields
from ipbp.graph.edges import EdgeKind

ENTRY = 0x55_5540_0000
NOP, RET, BTI_C, PACIASP = 0xD503201F, 0xD65F03C0, 0xD503245F, 0xD503233F
SUB, B_EQ_BACK, BL = 0xD10043FF, 0x54FFFFE0, 0x94000010  # sub sp, sp, #16; b.eq <-4>; bl <+64>


def code(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


def text(content: bytes, address: int) -> list[str]:
    reader = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    return [f"{row.mnemonic} {row.op_str}".strip() for row in reader.disasm(content, address)]


def old(*words: int, after: bytes = b"", targets: tuple[int, ...] = ()) -> OldEntry:
    return OldEntry("f", ENTRY, code(*words), after, targets)


@pytest.mark.parametrize("distance", [4, -4, BRANCH_REACH - 4, 4 - BRANCH_REACH])
def test_a_near_jump_is_one_word(distance: int) -> None:
    assert text(jump(ENTRY, ENTRY + distance, code(SUB)), ENTRY) == [f"b #{ENTRY + distance:#x}"]


@pytest.mark.parametrize("distance", [BRANCH_REACH, -BRANCH_REACH, 1 << 40])
def test_a_far_jump_is_four_words(distance: int) -> None:
    made = jump(ENTRY, ENTRY + distance, code(SUB))
    assert len(made) == 16
    assert text(made[:8], ENTRY) == [f"ldr x16, #{ENTRY + 8:#x}", "br x16"]
    assert int.from_bytes(made[8:], "little") == ENTRY + distance


def test_a_landing_pad_stays_first() -> None:
    assert jump_place(ENTRY, code(BTI_C, SUB)) == ENTRY + 4
    assert jump_place(ENTRY, code(SUB, BTI_C)) == ENTRY


def test_a_signing_entry_becomes_a_plain_landing_pad() -> None:
    assert jump_place(ENTRY, code(PACIASP, SUB)) == ENTRY
    made = jump(ENTRY, ENTRY + 4096, code(PACIASP, SUB))
    assert text(made, ENTRY) == ["bti c", f"b #{ENTRY + 4096:#x}"]


def test_a_jump_is_exchanged_for_one_of_its_size() -> None:
    near, far = jump(ENTRY, ENTRY + 4096, code(SUB)), jump(ENTRY, ENTRY + (1 << 30), code(SUB))
    signed = jump(ENTRY, ENTRY + 4096, code(PACIASP))
    assert jump_again(ENTRY, ENTRY + 8192, near) == jump(ENTRY, ENTRY + 8192, code(SUB))
    assert jump_again(ENTRY, ENTRY + (1 << 30), near) is None
    assert jump_again(ENTRY, ENTRY + 8192, far) == far[:8] + (ENTRY + 8192).to_bytes(8, "little")
    assert jump_again(ENTRY, ENTRY + 8192, signed) == jump(ENTRY, ENTRY + 8192, code(PACIASP))


def test_one_word_always_has_room_and_no_inside() -> None:
    assert check_entry(old(RET, after=code(SUB)), 4) == ()
    assert check_entry(old(SUB, B_EQ_BACK, RET, targets=(4,)), 4) == ()


def test_why_four_words_cannot_be_written() -> None:
    def reasons(entry: OldEntry) -> list[str]:
        return [refusal.code for refusal in check_entry(entry, 16)]

    assert reasons(old(SUB, NOP, NOP, RET)) == []
    assert reasons(old(SUB, RET, after=code(NOP, NOP))) == []
    assert reasons(old(SUB, RET, after=code(NOP, SUB))) == ["entry-too-short"]
    assert reasons(old(SUB, NOP, B_EQ_BACK, RET)) == ["entry-branch-target"]
    assert reasons(old(SUB, NOP, NOP, RET, targets=(8,))) == ["entry-branch-target"]
    assert reasons(old(SUB, BL, NOP, RET)) == ["entry-return-address"]
    assert reasons(old(BTI_C, SUB, NOP, NOP, BL, RET)) == []


def test_a_stub_goes_through_its_cell() -> None:
    rows = text(stub(0x55_5551_0010, 0x55_5560_0128), 0x55_5551_0010)
    assert rows == ["adrp x16, #0x5555600000", "ldr x16, [x16, #0x128]", "br x16", "brk #0"]


def test_padding_is_nops_traps_and_zeros() -> None:
    assert is_padding(code(NOP, 0, 0xD4200000, 0xD4200020))
    assert is_padding(bytes(6))
    assert not is_padding(code(NOP, RET))


@pytest.mark.parametrize(
    ("kind", "lowest", "highest", "step"),
    [
        (EdgeKind.BRANCH26, -(1 << 27), (1 << 27) - 4, 4),
        (EdgeKind.BRANCH19, -(1 << 20), (1 << 20) - 4, 4),
        (EdgeKind.BRANCH14, -(1 << 15), (1 << 15) - 4, 4),
        (EdgeKind.LITERAL19, -(1 << 20), (1 << 20) - 4, 4),
        (EdgeKind.ADDRESS21, -(1 << 20), (1 << 20) - 1, 1),
        (EdgeKind.PAGE21, -(1 << 32), (1 << 32) - 4096, 4096),
        (EdgeKind.MOVE_G0, 0, 0xFFFF, 1),
        (EdgeKind.MOVE_G1, 0, 0xFFFFFFFF, 0x10000),
        (EdgeKind.TP_LOW12, 0, 0xFFF, 1),
        (EdgeKind.TP_HIGH12, 0, 0xFFFFFF, 0x1000),
        (EdgeKind.WORD32, -(1 << 31), (1 << 32) - 1, 1),
    ],
)
def test_what_fits_is_written_and_what_does_not_is_seen(kind: EdgeKind, lowest: int, highest: int, step: int) -> None:
    values = np.array([lowest, highest, lowest - step, highest + step], dtype=np.int64)
    kinds = np.full(4, kind, dtype=np.uint8)
    assert out_of_range(kinds, values).tolist() == [False, False, True, True]
    place = np.array([0, 4], dtype=np.int64)
    written = write_fields(np.full(8, 0xA5, dtype=np.uint8), place, kinds[:2], values[:2])
    if kind != EdgeKind.WORD32:
        got = part_of_word(kinds[:2], written.view("<u4").astype(np.int64))
        assert got.tolist() == [value // step * step for value in (lowest, highest)]
    clear_fields(written, place, kinds[:2])
    untouched = np.full(8, 0xA5, dtype=np.uint8)
    clear_fields(untouched, place, kinds[:2])
    assert written.tolist() == untouched.tolist()


@pytest.mark.parametrize(
    ("kind", "size"), [(EdgeKind.LOW12_OF_64, 8), (EdgeKind.LOW12_OF_128, 16), (EdgeKind.BRANCH26, 4)]
)
def test_a_result_that_is_not_aligned_is_seen(kind: EdgeKind, size: int) -> None:
    values = np.array([size * 3, size * 3 + 1, size * 3 + size // 2], dtype=np.int64)
    assert out_of_range(np.full(3, kind, dtype=np.uint8), values).tolist() == [False, True, True]
