"""x86-64: what the instructions of a function take from those before them, by registers and by the frame.

For code that no optimiser has touched: each statement of it loads what it needs, and keeps temporaries in the frame,
which is reached from rbp. Whether a stretch of code stands for itself can be read off that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ipbp.arch.x86_64_effects import CLOBBERED, Effect, effects, wholes_of

NEAR_JUMP_SIZE = 5
NO_CALL = bytes.fromhex("0f1f440000")  # nopl 0(%rax,%rax,1), as long as a call
SAVED: frozenset[str | int] = frozenset({"rbx", "r12", "r13", "r14", "r15"})
"""Registers that a function gives back as they were (psABI, 3.2.1)."""
_JUMP = 0xE9  # jmp <end of it + 4 bytes>
_KEEPS = re.compile(r"mov dword ptr \[rbp - \w+\], e[ds]i")
_FRAME = frozenset({"rsp", "rbp", "rip"})


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction. `takes`, `gives`: registers, and places in the frame by their distance from rbp. `target`: where
    it may jump to, -1 for nowhere. `ends`: nothing runs on behind it. `keeps`: it stores an argument register (edi,
    esi) in the frame. `frames`: it changes where the frame is, or leaves the function. `is_indirect`: it goes somewhere
    that it does not tell."""

    offset: int
    size: int
    takes: frozenset[str | int]
    gives: frozenset[str | int]
    target: int
    ends: bool
    is_call: bool
    keeps: bool
    frames: bool
    is_indirect: bool

    @property
    def end(self) -> int:
        return self.offset + self.size


def steps(code: bytes) -> list[Step] | None:
    """The instructions in order; None where not all can be decoded."""
    found = effects(code)
    return None if found is None else [_step(row) for row in found]


def reachable(rows: list[Step]) -> Iterator[Step]:
    """Those that run when nothing is thrown, in the order of their addresses."""
    index = {row.offset: number for number, row in enumerate(rows)}
    seen: set[int] = set()
    waiting = [0]
    while waiting:
        number = waiting.pop()
        if number in seen or number >= len(rows):
            continue
        seen.add(number)
        row = rows[number]
        if row.target in index:
            waiting.append(index[row.target])
        if not row.ends:
            waiting.append(number + 1)
    return (rows[number] for number in sorted(seen))


def jump(source: int, target: int) -> bytes:
    """A jump at offset `source` to `target`, of NEAR_JUMP_SIZE bytes."""
    return bytes([_JUMP]) + (target - source - NEAR_JUMP_SIZE).to_bytes(4, "little", signed=True)


def _step(row: Effect) -> Step:
    end = row.offset + row.size
    writes = wholes_of(row.writes)
    clobbered = wholes_of(CLOBBERED) if row.is_call else frozenset()
    frame = [access for access in row.accesses if access.base == "rbp"]
    return Step(
        row.offset,
        row.size,
        frozenset[str | int](wholes_of(row.reads) - _FRAME).union(a.displacement for a in frame if a.reads),
        frozenset[str | int]((writes | clobbered) - _FRAME).union(
            a.displacement for a in frame if a.writes or a.is_address
        ),
        next((target for target in row.successors if target != end), -1),
        end not in row.successors,
        row.is_call,
        _KEEPS.fullmatch(row.text) is not None,
        not row.is_call and not writes.isdisjoint({"rsp", "rbp"}),
        row.is_indirect,
    )
