"""Whether anything in the program can still lead into the memory of patches that were undone.

A thread may be in its code, return to there, or have it in a register; the program may have kept the address of a
string of it; a coroutine may wait in it on a stack of its own. All of these are words that point there, so the
threads' registers, what the kernel keeps for the program and every byte of its writable memory are searched, at any
alignment. The part of a thread's stack that is not in use is left out where it is certain which part that is. Bits
that no address has are not looked at: programs keep other things there, and AArch64 a signature. What a search cannot
see is excluded by the engine beforehand (`PatchPlan.reclaimable`): what libc keeps in a code of its own can only be
addresses of functions that the patch brought, or of places that setjmp remembers.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Iterable, Iterator, Optional, Sequence

from ipbp.errors import IpbpError
from ipbp.host.abi import AARCH64, Abi, abi_of
from ipbp.host.inferior import Inferior, Ranges, Thread
from ipbp.host.pace import Pace
from ipbp.protocol import Region

LIMIT = 64 << 20
"""Bytes of writable memory that are searched while the program is stopped; with more the memory is kept."""
SECONDS = 2.0
"""How long that may take behind a remote server; where it would take longer the memory is kept."""

_PIECE, _REMOTE_PIECE = 4 << 20, 1 << 18
_RED_ZONE = 128  # below the stack pointer, in use (psABI, 3.2.2)
_LOW_END = 1 << 32  # addresses below may be kept in four bytes


def reached(inferior: Inferior, candidates: Sequence[Ranges]) -> set[int]:
    """Of these patches, each the half-open ranges of its memory, the indices of those that something outside of their
    own memory points into, or may: when in doubt it does."""
    everything = set(range(len(candidates)))
    try:
        return _reached(inferior, candidates, everything)
    except IpbpError as error:
        if error.code == "inferior-memory":
            return everything
        raise


def _reached(inferior: Inferior, candidates: Sequence[Ranges], everything: set[int]) -> set[int]:
    description = inferior.describe()
    abi, found = abi_of(description), set[int]()
    words = _words_into(candidates, abi)
    threads, regions = inferior.threads(), inferior.regions()
    for thread in threads:
        content = inferior.register_bytes(thread.id)
        found.update(index for row in words for _at, index in row.within(content))
    if found == everything:
        return everything
    kept = inferior.kept_words(SECONDS)
    if kept is None:
        return everything
    found.update(index for row in words for value in kept for index in row.of(value))
    parts = list(_parts(inferior, threads, regions, abi))
    size = sum(end - start for start, end in parts)
    if size > LIMIT:
        return everything
    pace = None if description.local else Pace(SECONDS)
    for start, content in _pieces(inferior, parts, pace, size):
        for row in words:
            for at, index in row.within(content):
                if not _is_in(start + at, candidates[index]):
                    found.add(index)
        if found == everything:
            break
    return found


@dataclass(frozen=True)
class _Words:
    """Words of so many `bits` that point into memory. `starts`, `ends`: of ranges in ascending order, `highest`: end of
    this one and all before, `owners`: which patch each is of. `patterns`: the upper bytes of every address in them, all
    but the last two."""

    bits: int
    starts: Sequence[int]
    ends: Sequence[int]
    highest: Sequence[int]
    owners: Sequence[int]
    patterns: Sequence[bytes]

    def of(self, value: int) -> Iterator[int]:
        """The patches that it points into. An end counts: it is the address behind a call that does not return."""
        value &= (1 << self.bits) - 1
        row = bisect_right(self.starts, value) - 1
        while row >= 0 and value <= self.highest[row]:  # with fewer bits ranges may overlap
            if value <= self.ends[row]:
                yield self.owners[row]
            row -= 1

    def within(self, content: bytes) -> Iterator[tuple[int, int]]:
        """Where in these bytes, at any alignment, a word points into which patch."""
        size = (self.bits + 7) // 8
        for pattern in self.patterns:
            at = content.find(pattern, 2)
            while at >= 0:
                for index in self.of(int.from_bytes(content[at - 2 : at - 2 + size], "little")):
                    yield at - 2, index
                at = content.find(pattern, at + 1)


def _words_into(candidates: Sequence[Ranges], abi: Abi) -> list[_Words]:
    """Of x86-64 addresses have 48 bits (psABI, 3.3.2), or four bytes. On AArch64 there may be as few as 36, and a
    signature above (Documentation/arch/arm64/memory.rst, pointer-authentication.rst)."""
    rows = sorted((start, end, index) for index, ranges in enumerate(candidates) for start, end in ranges)
    if abi is AARCH64:
        return _grouped([(36, rows)])
    low = [row for row in rows if row[0] < _LOW_END]
    return _grouped([(32, low), (48, [row for row in rows if row[0] >= _LOW_END])])


def _grouped(groups: Iterable[tuple[int, Sequence[tuple[int, int, int]]]]) -> list[_Words]:
    found = []
    for bits, rows in groups:
        count, size = 1 << bits, bits // 8 - 2
        low = [(start % count, start % count + end - start, index) for start, end, index in rows]
        low += [(start - count, end - count, index) for start, end, index in low if end >= count]
        low.sort()
        uppers = {upper for start, end, _index in low for upper in range(start >> 16, (end >> 16) + 1)}
        patterns = {(upper % (1 << 8 * size)).to_bytes(size, "little") for upper in uppers}
        if low:
            starts, ends, owners = zip(*low)
            found.append(_Words(bits, starts, ends, list(accumulate(ends, max)), owners, sorted(patterns)))
    return found


def _is_in(value: int, ranges: Ranges) -> bool:
    return any(start <= value < end for start, end in ranges)


def _parts(
    inferior: Inferior, threads: Sequence[Thread], regions: Sequence[Region], abi: Abi
) -> Iterator[tuple[int, int]]:
    """Writable memory without what is not in use of stacks."""
    pointers = [inferior.registers(thread.id, (abi.stack,))[abi.stack] for thread in threads]
    for row, region in enumerate(regions):
        if "w" in region.protection:
            yield _start_in_use(region, regions[row - 1] if row else None, pointers), region.end


def _start_in_use(region: Region, before: Optional[Region], pointers: Sequence[int]) -> int:
    # The main thread's stack, or one that a guard page is below: the mapping is that stack, used from its pointer on.
    inside = [pointer for pointer in pointers if region.start <= pointer < region.end]
    guarded = before is not None and before.end == region.start and not before.protection
    if len(inside) == 1 and (region.path == "[stack]" or guarded):
        return max(region.start, inside[0] - _RED_ZONE)
    return region.start


def _pieces(
    inferior: Inferior, parts: Iterable[tuple[int, int]], pace: Optional[Pace], size: int
) -> Iterator[tuple[int, bytes]]:
    """These ranges of memory in pieces that overlap by less than a word, each with its address. Errors:
    `inferior-memory` also when it would take too long."""
    step, done = _PIECE if pace is None else _REMOTE_PIECE, 0
    for start, end in parts:
        for at in range(start, end, step):
            content = inferior.read(at, min(step + 7, end - at))
            yield at, content
            done += len(content)
            if pace is not None and not pace.is_kept(done, size):
                raise IpbpError("inferior-memory", "to read all memory would take too long", "Use a faster link.")
