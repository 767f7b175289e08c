"""AArch64: the jump over an old function's entry, and the stub that reaches anywhere.

`b` takes one word and reaches 128 MiB: it is written by one store, and no thread can meet half of it. What lies farther
is reached through x16, which a call may change (AAPCS64, "Use of IP0 and IP1 by the linker"): four words, and then the
same three conditions hold as on x86-64, checked on the bytes really in memory: the words belong to the function or to
padding; no branch goes into the middle of them; no call in them returns there.

An indirect call must land on `bti` where the processor enforces it (Arm Architecture Reference Manual, "Branch Target
Identification"), so one that is there stays first. `paciasp` is such a landing pad, too, but must not be run twice for
one return address: `bti c` takes its place.
"""

from __future__ import annotations

from collections.abc import Callable

from ipbp.arch.aarch64_code import BRK, WORD, branch_targets, call_returns, is_padding
from ipbp.arch.entry import OldEntry, branch_target, return_address, too_short
from ipbp.errors import Refusal

STUB_SIZE = 16
LONGEST = 20  # bti c, the four words of a long jump
BRANCH_REACH = (1 << 27) - (64 << 10)
"""Of `b`, with a little room for what is added to an address."""

BTI_C = 0xD503245F
_LANDING = (BTI_C, 0xD50324DF)  # bti c; bti jc
_SIGNS = (0xD503233F, 0xD503237F)  # paciasp; pacibsp
_LOAD_TARGET = 0x58000050  # ldr x16, <pc + 8>
_BRANCH_X16 = 0xD61F0200  # br  x16
_ADRP_X16, _LOAD_X16 = 0x90000010, 0xF9400210  # adrp x16, <page>; ldr x16, [x16, <low>]


def jump_place(entry: int, code: bytes) -> int:
    """Address of the jump: the entry, or behind its landing pad. `code` starts with the function's first bytes."""
    return entry + WORD if _word(code) in _LANDING else entry


def jump(place: int, target: int, before: bytes) -> bytes:
    """What leads from the address `place` to `target`; `before` is what stands there in the old function."""
    pad = BTI_C.to_bytes(WORD, "little") if _word(before) in _SIGNS else b""
    return pad + _jump(place + len(pad), target)


def jump_again(place: int, target: int, written: bytes) -> bytes | None:
    """The same over a jump that an earlier patch has `written`, of the same size; None where that cannot be."""
    pad = written[:WORD] if _word(written) == BTI_C else b""
    size, place = len(written) - len(pad), place + len(pad)
    made = _jump(place, target) if size == WORD else _long_jump(target)
    return pad + made if len(made) == size else None


def stub(place: int, slot: int) -> bytes:
    """A jump through the cell at `slot` for the address `place`, filled up to STUB_SIZE with a trap."""
    pages = (slot >> 12) - (place >> 12)
    page = _ADRP_X16 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    load = _LOAD_X16 | (slot & 0xFFF) >> 3 << 10
    return b"".join(word.to_bytes(WORD, "little") for word in (page, load, _BRANCH_X16, BRK))


def check_entry(entry: OldEntry, size: int) -> tuple[Refusal, ...]:
    """Why the entry cannot hold a jump of that size: `entry-too-short`, `entry-branch-target`,
    `entry-return-address`."""
    skip = jump_place(0, entry.code)
    inside, missing = range(skip + 1, skip + size), skip + size - len(entry.code)
    told: list[Callable[[OldEntry, int, int], Refusal]] = []
    if missing > 0 and (len(entry.after) < missing or not is_padding(entry.after)):
        told.append(too_short)
    if any(target in inside for target in (*branch_targets(entry.code), *entry.targets)):
        told.append(branch_target)
    if any(place in inside for place in call_returns(entry.code)):
        told.append(return_address)
    return tuple(refusal(entry, size, size // WORD) for refusal in told)


def _jump(place: int, target: int) -> bytes:
    distance = target - place
    if abs(distance) < BRANCH_REACH:
        return (0x14000000 | distance >> 2 & 0x03FFFFFF).to_bytes(WORD, "little")  # b  <target>
    return _long_jump(target)


def _long_jump(target: int) -> bytes:
    code = b"".join(word.to_bytes(WORD, "little") for word in (_LOAD_TARGET, _BRANCH_X16))
    return code + target.to_bytes(8, "little")


def _word(code: bytes) -> int:
    return int.from_bytes(code[:WORD], "little")
