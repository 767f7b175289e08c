"""What the instructions of a function take from those before them, by registers and by the frame.

For code that no optimiser has touched: each statement of it loads what it needs, and keeps temporaries in the frame.
Whether a stretch of code stands for itself can be read off that. How is the machine's (`x86_64_flow`, `aarch64_flow`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from ipbp.graph.edges import EdgeKind


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction. `takes`, `gives`: registers, and places in the frame by their distance from its register.
    `target`: where it may jump to, -1 for nowhere. `ends`: nothing runs on behind it. `keeps`: it stores an argument
    register in the frame (one of the first two, 32 bits). `frames`: it changes where the frame is, keeps there what a
    caller has in a register, or leaves the function. `is_indirect`: it goes somewhere that it does not tell."""

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


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known of a machine's code. `steps`: the instructions in order; None where not all of them can be told.
    `asking`: offsets of those that ask for the arguments that the function keeps; None where that cannot be told.
    `without_call(code, kind, field)`: the function, in which the call with this fixup does nothing, or None if it is no
    call. `jump(source, target)`: `jump_size` bytes. `saved`: registers that a function gives back as they were."""

    steps: Callable[[bytes], list[Step] | None]
    asking: Callable[[Sequence[Step], bytes], Collection[int] | None]
    without_call: Callable[[bytes, EdgeKind, int], bytes | None]
    jump: Callable[[int, int], bytes]
    jump_size: int
    saved: frozenset[str | int]


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


def kept_places(rows: Sequence[Step]) -> set[str | int]:
    """Where in the frame the function keeps its arguments."""
    return {place for row in rows if row.keeps for place in row.gives}
