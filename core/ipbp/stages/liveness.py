"""What a place in a function depends on: registers whose values are still used from there on, and bytes of the frame.

A value is live where some way leads from it to a use without a definition in between; the sets grow until nothing
changes. Where control goes somewhere unknown (a table of jumps), it may go to every place that jumps lead to or lines
begin at. A call reads those argument registers that were written since the call before it: compilers set them up for
one call. Bytes of the frame are bits of an integer, bit n for the byte at CFA - 1 - n.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ipbp.arch.x86_64_effects import ARGUMENTS, CLOBBERED, VECTOR_ARGUMENTS, Access, Effect, leaders, parts_of
from ipbp.graph.frames import RBP, RSP, DescribedFunction, UnwindRow

LARGEST_FRAME = 1 << 16
_CALL_READS = parts_of((*ARGUMENTS, *VECTOR_ARGUMENTS, "rax", "r10"))
_COUNT = parts_of(("rax",))
_PUTS_NUMBER = re.compile(r"mov [er]?a[xl], (0x)?[0-9a-f]+$|xor e?ax, e?ax$")
_BASES = {"rbp": RBP, "rsp": RSP}


@dataclass(frozen=True, slots=True)
class Flow:
    """The instructions of a function by index. `next`, `before`: where control goes to and comes from; `leads`: indices
    that a branch leads to. `at`: index by offset. `places`: for each instruction its accesses to the frame, as places
    from the CFA. `has_unknown`: an access to the stack whose place is not known."""

    rows: Sequence[Effect]
    next: Sequence[tuple[int, ...]]
    before: Sequence[tuple[int, ...]]
    leads: frozenset[int]
    at: dict[int, int]
    places: Sequence[tuple[tuple[int, Access], ...]]
    has_unknown: bool


def flow_of(function: DescribedFunction, rows: Sequence[Effect]) -> Flow:
    at = {row.offset: index for index, row in enumerate(rows)}
    starts = leaders(rows)
    unreached = _may_be_jumped_to(function, rows)
    following = []
    for row in rows:
        known = [at[offset] for offset in row.successors if offset in at]
        following.append(tuple(dict.fromkeys([*known, *(at[offset] for offset in unreached if row.is_indirect)])))
    before: list[list[int]] = [[] for _ in rows]
    for index, targets in enumerate(following):
        for target in targets:
            before[target].append(index)
    places, has_unknown = frame_accesses(function, rows)
    return Flow(
        rows,
        following,
        [tuple(row) for row in before],
        frozenset(at[offset] for offset in starts if offset in at),
        at,
        places,
        has_unknown,
    )


def _may_be_jumped_to(function: DescribedFunction, rows: Sequence[Effect]) -> list[int]:
    # Targets of a table are where a case begins: behind a jump, where a jump leads to, or, where the case before runs
    # into it, at the beginning of a line.
    found = {row.offset for row in function.lines if row.offset}
    for before, row in pairwise(rows):
        if len(before.successors) != 1 or before.successors[0] != row.offset:
            found.update((row.offset, *before.successors))
    return sorted(found)


def place_of(access: Access, row: UnwindRow | None) -> int | None:
    """Where an access lies, counted from the CFA; None when it is not known, or not of the frame."""
    base = _BASES.get(access.base)
    if base is None or row is None or row.base != base:
        return None
    return access.displacement - row.distance


def frame_accesses(
    function: DescribedFunction, rows: Sequence[Effect]
) -> tuple[list[tuple[tuple[int, Access], ...]], bool]:
    """For each instruction its accesses to the frame, as places from the CFA; whether there are some whose place is not
    known."""
    found, has_unknown = [], False
    for row in rows:
        unwind = function.unwind_at(row.offset)
        here = []
        for access in row.accesses:
            place = place_of(access, unwind)
            if place is not None:
                here.append((place, access))
            elif access.base == "rsp" and access.reads:
                has_unknown = True
        found.append(tuple(here))
    return found, has_unknown


def live_registers(flow: Flow, entry: Collection[str] = ()) -> list[frozenset[str]]:
    """Before each instruction. `entry`: registers that the function's own arguments may be in."""
    called = _arguments_set(flow, parts_of(entry))
    reads = [row.reads | (called[index] if row.is_call else frozenset()) for index, row in enumerate(flow.rows)]
    kills = [row.kills | (CLOBBERED if row.is_call else frozenset()) for row in flow.rows]
    live: list[frozenset[str]] = [frozenset()] * len(flow.rows)
    waiting = list(range(len(flow.rows)))
    while waiting:
        index = waiting.pop()
        after = frozenset().union(*(live[target] for target in flow.next[index]))
        now = reads[index] | (after - kills[index])
        if now != live[index]:
            live[index] = now
            waiting.extend(flow.before[index])
    return live


def _arguments_set(flow: Flow, entry: frozenset[str]) -> list[frozenset[str]]:
    """Before each instruction the argument registers that were written since the last call, on some way."""
    known: list[frozenset[str] | None] = [None] * len(flow.rows)
    waiting = [(0, entry & _CALL_READS)] if flow.rows else []
    while waiting:
        index, coming = waiting.pop()
        before = known[index]
        now = coming if before is None else before | coming
        if now == before:
            continue
        known[index] = now
        row = flow.rows[index]
        after = frozenset() if row.is_call else now | _set_up(row)
        waiting.extend((target, after) for target in flow.next[index])
    return [row or frozenset() for row in known]


def _set_up(row: Effect) -> frozenset[str]:
    # In al is the number of vector registers that a variadic function gets (psABI): always a number in the code.
    found = row.writes & _CALL_READS
    return found if not found & _COUNT or _PUTS_NUMBER.match(row.text) else found - _COUNT


def bits(place: int, size: int) -> int:
    """The bytes [place, place + size) below the CFA."""
    low, high = -(place + size), -place
    low = max(low, 0)
    return ((1 << high) - (1 << low)) if high > low else 0


def live_frame(flow: Flow, function: DescribedFunction, addressed_too: bool = True) -> list[int]:
    """Before each instruction the live bytes of the frame. Who takes the address of a variable reads all of it, and so
    does an access by an index."""
    uses, ends = [], []
    for index in range(len(flow.rows)):
        read = written = 0
        for place, access in flow.places[index]:
            if access.is_indexed or access.is_address:
                if addressed_too or access.reads:
                    read |= extent(function, place, max(access.size, 1))
                continue
            read |= bits(place, access.size) if access.reads else 0
            written |= bits(place, access.size) if access.writes else 0
        uses.append(read)
        ends.append(written & ~read)
    live = [0] * len(flow.rows)
    waiting = list(range(len(flow.rows)))
    while waiting:
        index = waiting.pop()
        after = 0
        for target in flow.next[index]:
            after |= live[target]
        now = uses[index] | (after & ~ends[index])
        if now != live[index]:
            live[index] = now
            waiting.extend(flow.before[index])
    return live


def extent(function: DescribedFunction, place: int, size: int) -> int:
    """The bytes of the variables that this place is in; the place's own where it is in none."""
    found = bits(place, size)
    for row in function.variables:
        if row.place is not None and row.place <= place < row.place + max(row.size, 1):
            found |= bits(row.place, row.size)
    return found


def reaching(flow: Flow, index: int) -> set[int]:
    """Instructions from which control can come to this one, without the one itself unless it is in a loop."""
    found: set[int] = set()
    waiting = list(flow.before[index])
    while waiting:
        at = waiting.pop()
        if at not in found:
            found.add(at)
            waiting.extend(flow.before[at])
    return found
