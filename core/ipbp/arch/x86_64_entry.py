"""x86-64: the jump over an old function's entry, and the stub that reaches anywhere.

The entry of a function that was replaced becomes `jmp new`, five bytes. That is safe under three conditions, all
checked here on the bytes really in memory: the five bytes belong to the function, or to padding that nothing runs
or reads; no branch goes into the middle of them; no call in them returns into the middle of them. Where five bytes
cannot be had two may do: a short jump to padding nearby, which holds the long one (a relay).
A leading `endbr64` stays first, because indirect calls must land on one where the processor enforces it (Intel SDM
vol. 1, "Indirect Branch Tracking").
"""

from __future__ import annotations

from ipbp.arch.entry import OldEntry, branch_target, return_address, too_short
from ipbp.arch.x86_64_code import branches, instructions, is_padding
from ipbp.errors import Refusal

ENDBR64 = bytes([0xF3, 0x0F, 0x1E, 0xFA])  # endbr64
JUMP_SIZE = 5
SHORT_JUMP_SIZE = 2
RELAY_REACH = range(-126, 130)
"""Where a relay may begin, counted from the short jump's place: its 8-bit distance counts from its own end."""
STUB_SIZE = 8
_NEAR_JUMP = 0xE9  # jmp  <end of instruction + rel32>
_SHORT_JUMP = 0xEB  # jmp  <end of instruction + rel8>
_INDIRECT_JUMP = bytes([0xFF, 0x25])  # jmp  *<end of instruction + rel32>
_INT3 = 0xCC
_NOPS = 5  # as many one-byte nops make room for a jump


def jump_place(entry: int, code: bytes) -> int:
    """Address of the jump: the entry, or behind its `endbr64`. `code` starts with the function's first bytes."""
    return entry + len(ENDBR64) if code.startswith(ENDBR64) else entry


def jump(place: int, target: int) -> bytes:
    """`jmp target` for the address `place`. A near jump counts from its own end, hence the 5 (Intel SDM vol. 2, JMP).

    Errors: OverflowError when the target is 2 GiB away or more; the arena's place rules that out.
    """
    return bytes([_NEAR_JUMP]) + (target - place - JUMP_SIZE).to_bytes(4, "little", signed=True)


def short_jump(place: int, relay: int) -> bytes:
    """`jmp relay` in two bytes for the address `place`; `relay - place` is in RELAY_REACH."""
    return bytes([_SHORT_JUMP]) + (relay - place - SHORT_JUMP_SIZE).to_bytes(1, "little", signed=True)


def relay_of(place: int, code: bytes) -> int:
    """Where a jump made here leads on the way: the relay of a short one, the place itself for a near one."""
    if len(code) != SHORT_JUMP_SIZE:
        return place
    return place + SHORT_JUMP_SIZE + int.from_bytes(code[1:], "little", signed=True)


def stub(place: int, slot: int) -> bytes:
    """`jmp *slot(%rip)` for the address `place`, filled up to STUB_SIZE with `int3`. `slot` holds the target."""
    distance = (slot - place - 6).to_bytes(4, "little", signed=True)
    return (_INDIRECT_JUMP + distance).ljust(STUB_SIZE, bytes([_INT3]))


def check_entry(entry: OldEntry, size: int = JUMP_SIZE) -> tuple[Refusal, ...]:
    """Why the entry cannot hold a jump of that size: `entry-too-short`, `entry-branch-target`,
    `entry-return-address`."""
    skip = len(ENDBR64) if entry.code.startswith(ENDBR64) else 0
    inside = range(skip + 1, skip + size)
    refusals = []
    if not _has_room(entry, skip + size):
        refusals.append(too_short(entry, JUMP_SIZE, _NOPS))
    if any(branch.target in inside for branch in branches(entry.code)) or not set(inside).isdisjoint(entry.targets):
        refusals.append(branch_target(entry, JUMP_SIZE, _NOPS))
    if any(row.mnemonic.startswith("call") and row.offset + row.size in inside for row in instructions(entry.code)):
        refusals.append(return_address(entry, JUMP_SIZE, _NOPS))
    return tuple(refusals)


def _has_room(entry: OldEntry, size: int) -> bool:
    missing = size - len(entry.code)
    if missing <= 0:
        return True
    # Padding counts as a whole: the first bytes of something real can look like a nop of another length.
    return len(entry.after) >= missing and is_padding(entry.after)
