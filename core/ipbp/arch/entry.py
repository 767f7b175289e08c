"""The entry of a running function that is to be replaced, and why a jump may not be written over it."""

from __future__ import annotations

from dataclasses import dataclass

from ipbp.errors import Refusal

LANDING_SIZE = 4
"""Bytes of the instruction that indirect calls must land on and that stays first: endbr64, bti."""


@dataclass(frozen=True, slots=True)
class OldEntry:
    """The entry of a running function. `code`: its bytes in memory; `after`: what follows it in memory, up to the
    next symbol and not beyond the end of its section (a section's neighbour may start at once, without padding).
    `targets`: offsets in the function to which something else than its own direct branches may jump."""

    name: str
    address: int
    code: bytes
    after: bytes
    targets: tuple[int, ...] = ()


def too_short(entry: OldEntry, needed: int, nops: int) -> Refusal:
    """`needed`: bytes of the jump; `nops`: how many of them to ask the compiler for."""
    size = len(entry.code)
    return Refusal(
        "entry-too-short",
        f"cannot replace '{entry.name}' ({size} byte{'' if size == 1 else 's'}, not enough padding after it or near "
        f"it): the jump at its entry needs {needed}",
        _advice(nops),
        entry.name,
    )


def branch_target(entry: OldEntry, needed: int, nops: int) -> Refusal:
    return Refusal(
        "entry-branch-target",
        f"cannot replace '{entry.name}': a branch goes into its first {needed} bytes, where the jump must be",
        _advice(nops),
        entry.name,
    )


def return_address(entry: OldEntry, needed: int, nops: int) -> Refusal:
    return Refusal(
        "entry-return-address",
        f"cannot replace '{entry.name}': a call in it returns into its first {needed} bytes, where the jump must be",
        _advice(nops),
        entry.name,
    )


def _advice(nops: int) -> str:
    return f"Rebuild the program with -fpatchable-function-entry={nops}, or edit its callers instead."
