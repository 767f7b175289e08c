"""x86-64: the jump over an old function's entry, and the stub that reaches anywhere.

The entry of a function that was replaced becomes `jmp new`, five bytes. That is safe under three conditions, all
checked here on the bytes really in memory: the five bytes belong to the function, or to padding that nothing runs
or reads; no branch of the function goes into the middle of them; no call in them returns into the middle of them.
A leading `endbr64` stays first, because indirect calls must land on one where the processor enforces it (Intel SDM
vol. 1, "Indirect Branch Tracking").
"""

from __future__ import annotations

from dataclasses import dataclass

from ipbp.arch.x86_64_code import branches, instructions, is_padding
from ipbp.errors import Refusal

ENDBR64 = bytes([0xF3, 0x0F, 0x1E, 0xFA])  # endbr64
JUMP_SIZE = 5
STUB_SIZE = 8
_NEAR_JUMP = 0xE9  # jmp  <end of instruction + rel32>
_INDIRECT_JUMP = bytes([0xFF, 0x25])  # jmp  *<end of instruction + rel32>
_INT3 = 0xCC


@dataclass(frozen=True, slots=True)
class OldEntry:
    """The entry of a running function. `code`: its bytes in memory; `after`: what follows it in memory, up to the
    next symbol and not beyond the end of its section (a section's neighbour may start at once, without padding)."""

    name: str
    address: int
    code: bytes
    after: bytes


def jump_place(entry: int, code: bytes) -> int:
    """Address of the jump: the entry, or behind its `endbr64`. `code` starts with the function's first bytes."""
    return entry + len(ENDBR64) if code.startswith(ENDBR64) else entry


def jump(place: int, target: int) -> bytes:
    """`jmp target` for the address `place`. A near jump counts from its own end, hence the 5 (Intel SDM vol. 2, JMP).

    Errors: OverflowError when the target is 2 GiB away or more; the arena's place rules that out.
    """
    return bytes([_NEAR_JUMP]) + (target - place - JUMP_SIZE).to_bytes(4, "little", signed=True)


def stub(place: int, slot: int) -> bytes:
    """`jmp *slot(%rip)` for the address `place`, filled up to STUB_SIZE with `int3`. `slot` holds the target."""
    distance = (slot - place - 6).to_bytes(4, "little", signed=True)
    return (_INDIRECT_JUMP + distance).ljust(STUB_SIZE, bytes([_INT3]))


def check_entry(entry: OldEntry) -> tuple[Refusal, ...]:
    """Why the entry cannot hold a jump: `entry-too-short`, `entry-branch-target`, `entry-return-address`."""
    skip = len(ENDBR64) if entry.code.startswith(ENDBR64) else 0
    inside = range(skip + 1, skip + JUMP_SIZE)
    refusals = []
    if not _has_room(entry, skip + JUMP_SIZE):
        refusals.append(_too_short(entry))
    if any(branch.target in inside for branch in branches(entry.code)):
        refusals.append(_branch_target(entry))
    if any(row.mnemonic.startswith("call") and row.offset + row.size in inside for row in instructions(entry.code)):
        refusals.append(_return_address(entry))
    return tuple(refusals)


def _has_room(entry: OldEntry, size: int) -> bool:
    missing = size - len(entry.code)
    if missing <= 0:
        return True
    # Padding counts as a whole: the first bytes of something real can look like a nop of another length.
    return len(entry.after) >= missing and is_padding(entry.after)


def _too_short(entry: OldEntry) -> Refusal:
    size = len(entry.code)
    return Refusal(
        "entry-too-short",
        f"cannot replace '{entry.name}' ({size} byte{'' if size == 1 else 's'}, not enough padding after it): "
        f"the jump at its entry needs {JUMP_SIZE}",
        "Rebuild the program with -fpatchable-function-entry=5, or edit its callers instead.",
        entry.name,
    )


def _branch_target(entry: OldEntry) -> Refusal:
    return Refusal(
        "entry-branch-target",
        f"cannot replace '{entry.name}': a loop in it jumps into its first {JUMP_SIZE} bytes, where the jump must be",
        "Rebuild the program with -fpatchable-function-entry=5, or edit its callers instead.",
        entry.name,
    )


def _return_address(entry: OldEntry) -> Refusal:
    return Refusal(
        "entry-return-address",
        f"cannot replace '{entry.name}': a call in it returns into its first {JUMP_SIZE} bytes, where the jump must be",
        "Rebuild the program with -fpatchable-function-entry=5, or edit its callers instead.",
        entry.name,
    )
