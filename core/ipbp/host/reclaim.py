"""Whether anything in the program can still lead into the memory of a patch that was undone.

A thread may be in its code, return to there, or have it in a register; the program may have kept the address of a
string of it; a coroutine may wait in it on a stack of its own. All of these are words that point there, so the
threads' registers, what the kernel keeps for the program and every byte of its writable memory are searched, at any
alignment. The part of a thread's stack that is not in use is left out where it is certain which part that is. What a
search cannot see is excluded by the engine beforehand (`PatchPlan.reclaimable`): what libc keeps in a code of its own
can only be addresses of functions that the patch brought, or of places that setjmp remembers.
"""

from __future__ import annotations

import re
from typing import Iterable, Iterator, Optional, Sequence

from ipbp.errors import IpbpError
from ipbp.host.inferior import Inferior, Ranges, Thread
from ipbp.host.kernel_words import kept_words
from ipbp.protocol import Region

LIMIT = 64 << 20
"""Bytes of writable memory that are searched while the program is stopped; with more the memory is kept."""

_PIECE = 4 << 20
_RED_ZONE = 128  # below the stack pointer, in use (psABI, 3.2.2)
_REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip")
_LOW_END = 1 << 32  # addresses below may be kept in four bytes


def is_reachable(inferior: Inferior, ranges: Ranges) -> bool:
    """Whether something points into the half-open `ranges`, or may: when in doubt it does."""
    threads, regions = inferior.threads(), inferior.regions()
    if any(_is_in(value, ranges) for thread in threads for value in _values(inferior, thread)):
        return True
    kept = _kept_by_kernel(inferior)
    if kept is None or any(_is_in(value, ranges) for value in kept):
        return True
    parts = list(_parts(inferior, threads, regions, ranges))
    if sum(end - start for start, end in parts) > LIMIT:
        return True
    patterns = [re.compile(pattern, re.DOTALL) for pattern in sorted(_patterns(ranges))]
    try:
        return any(_points(inferior, start, end, ranges, patterns) for start, end in parts)
    except IpbpError as error:
        if error.code == "inferior-memory":
            return True
        raise


def _values(inferior: Inferior, thread: Thread) -> Iterable[int]:
    return inferior.registers(thread.id, _REGISTERS).values()


def _kept_by_kernel(inferior: Inferior) -> Optional[list[int]]:
    described = inferior.describe()
    return kept_words(described.pid) if described.local else None


def _is_in(value: int, ranges: Ranges) -> bool:
    # An end counts: the address behind a call that does not return.
    return any(start <= value <= end for start, end in ranges)


def _parts(
    inferior: Inferior, threads: Sequence[Thread], regions: Sequence[Region], ranges: Ranges
) -> Iterator[tuple[int, int]]:
    """Writable memory without the patch itself and without what is not in use of stacks."""
    pointers = [inferior.registers(thread.id, ("rsp",))["rsp"] for thread in threads]
    for row, region in enumerate(regions):
        if "w" not in region.protection:
            continue
        start = _start_in_use(region, regions[row - 1] if row else None, pointers)
        for low, high in sorted(ranges):
            if start < high and low < region.end:
                if start < low:
                    yield start, low
                start = high
        if start < region.end:
            yield start, region.end


def _start_in_use(region: Region, before: Optional[Region], pointers: Sequence[int]) -> int:
    # The main thread's stack, or one that a guard page is below: the mapping is that stack, used from its pointer on.
    inside = [pointer for pointer in pointers if region.start <= pointer < region.end]
    guarded = before is not None and before.end == region.start and not before.protection
    if len(inside) == 1 and (region.path == "[stack]" or guarded):
        return max(region.start, inside[0] - _RED_ZONE)
    return region.start


def _patterns(ranges: Ranges) -> set[bytes]:
    """The upper bytes of every address in the ranges: all but the last two, of eight or of four bytes."""
    found = set()
    for start, end in ranges:
        for upper in range(start >> 16, (end >> 16) + 1):
            size = 2 if start < _LOW_END else 4
            found.add(re.escape((upper & (1 << 8 * size) - 1).to_bytes(size, "little")))
    return found


def _points(inferior: Inferior, start: int, end: int, ranges: Ranges, patterns: Sequence[re.Pattern[bytes]]) -> bool:
    size = 4 if min(low for low, _high in ranges) < _LOW_END else 8
    for at in range(start, end, _PIECE):
        content = inferior.read(at, min(_PIECE + 7, end - at))
        for pattern in patterns:
            for match in pattern.finditer(content):
                first = match.start() - 2
                value = int.from_bytes(content[first : first + size], "little") if first >= 0 else -1
                if _is_in(value, ranges):
                    return True
    return False
