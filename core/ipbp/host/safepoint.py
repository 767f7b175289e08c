"""No thread inside bytes that are about to change: neither with its pc nor with an address to come back to.

A thread with its pc there is stepped out, one instruction at a time, all others held. A return address there is
rare (an entry that begins with a short indirect call, or a signal that arrived in those few bytes) and fatal, and
nothing can be done but wait; so the stacks are searched for one. Any word between a thread's stack pointer and the
bottom of its stack counts. That needs no unwinder, sees through signal frames and costs microseconds; and since the
first byte of a function is not among the ranges, ordinary function pointers do not look like one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Iterable, Iterator, Optional, Sequence

from ipbp.errors import IpbpError
from ipbp.host.abi import abi_of
from ipbp.host.inferior import Inferior, Ranges, Thread
from ipbp.protocol import Region

STEP_LIMIT = 64
"""Instructions that a thread is stepped before we give up: a few bytes hold few, but some repeat themselves."""

_STACK_LIMIT = 1 << 20  # bytes of a stack that are searched, from its innermost end


@dataclass(frozen=True)
class Stack:
    """Where a stopped thread is, and the bytes of its stack from its stack pointer on, in whole words. `link`: the
    return address of its innermost call, where that is in a register. Return addresses have no signatures here."""

    thread: int
    pc: int
    content: bytes
    link: int = 0


@dataclass(frozen=True)
class Cleared:
    """`moved`: threads that were stepped out. `stacks`: of all threads, as they are now."""

    moved: list[int]
    stacks: list[Stack]


def clear(inferior: Inferior, ranges: Ranges, regions: Optional[Sequence[Region]] = None) -> Cleared:
    """Step threads out of the half-open `ranges`. `regions`: where the stacks are, when that is known already.

    Errors: `safepoint-stuck` when a thread does not leave, `safepoint-frame` when one will come back to there.
    """
    if not ranges:
        return Cleared([], [])
    span = _Span(ranges)
    threads = inferior.threads()
    inside = [thread for thread in threads if thread.pc in span]
    for thread in inside:
        _step_out(inferior, thread, span)
    found = _stacks(inferior, inferior.threads() if inside else threads, regions or inferior.regions())
    held = _users(found, span)
    if held:
        names = ", ".join(map(str, held))
        raise IpbpError(
            "safepoint-frame",
            f"thread {names} will return into bytes that would change",
            "Continue for a moment and try again.",
        )
    return Cleared([thread.id for thread in inside], found)


def users(inferior: Inferior, ranges: Ranges) -> list[int]:
    """Ids of the threads that are inside `ranges` or have a word on their stack that points there."""
    return users_of(stacks(inferior), ranges)


def users_of(stacks: Sequence[Stack], ranges: Ranges) -> list[int]:
    """The same, of stacks that were read before."""
    return _users(stacks, _Span(ranges))


def _users(stacks: Sequence[Stack], span: _Span) -> list[int]:
    return [stack.thread for stack in stacks if stack.pc in span or stack.link in span or span.has_any(stack.content)]


class Reach:
    """Where in `ranges` the threads are or will come back to: each stack is searched once, however often one asks."""

    def __init__(self, stacks: Sequence[Stack], ranges: Ranges) -> None:
        self._threads = [stack.thread for stack in stacks]
        by_half: dict[int, list[tuple[int, int]]] = {}  # so that each is searched for by its upper half
        for start, end in ranges:
            by_half.setdefault(start >> 32, []).append((start, end))
        spans = [_Span(rows) for rows in by_half.values()]
        rows = sorted((word, place) for place, stack in enumerate(stacks) for word in _words_of(stack, spans))
        self._words, self._places = [word for word, _ in rows], [place for _, place in rows]

    def users_of(self, ranges: Ranges) -> list[int]:
        """Ids of the threads that are inside these, which must be among those that were searched for, or that have a
        word on their stack that points there."""
        found: set[int] = set()
        for start, end in ranges:
            found.update(self._places[bisect_left(self._words, start) : bisect_left(self._words, end)])
        return [self._threads[place] for place in sorted(found)]


def _words_of(stack: Stack, spans: Sequence[_Span]) -> Iterator[int]:
    for span in spans:
        yield from (word for word in (stack.pc, stack.link) if word in span)
        yield from span.words_of(stack.content)


def words_in(content: bytes, ranges: Ranges) -> list[int]:
    """The words of a stack that point into these."""
    return _Span(ranges).words_of(content)


class _Span:
    """Half-open ranges that can be asked `address in span`, in no time even for hundreds of them."""

    def __init__(self, ranges: Ranges) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(ranges):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def __contains__(self, address: int) -> bool:
        at = bisect_right(self._starts, address) - 1
        return at >= 0 and address < self._ends[at]

    def has_any(self, stack: bytes) -> bool:
        return any(word in self for word in _words_between(stack, self._starts[0], self._ends[-1]))

    def words_of(self, stack: bytes) -> list[int]:
        return [word for word in _words_between(stack, self._starts[0], self._ends[-1]) if word in self]


def _words_between(stack: bytes, lowest: int, highest: int) -> Iterable[int]:
    # The aligned words from `lowest` up to `highest`, and perhaps some others. Most words of a stack are something
    # else, so they are looked for by their upper half, which is searched for by the C library.
    upper = lowest >> 32
    if upper == 0 or upper != (highest - 1) >> 32:  # half of a stack is zero
        return [word for word in array("Q", stack) if lowest <= word < highest]
    return [int.from_bytes(stack[at - 4 : at + 4], "little") for at in _upper_halves(stack, upper)]


def _upper_halves(stack: bytes, upper: int) -> Iterator[int]:
    wanted = upper.to_bytes(4, "little")
    at = stack.find(wanted, 4)
    while at >= 0:
        if at % 8 == 4:
            yield at
        at = stack.find(wanted, at + 1)


def _step_out(inferior: Inferior, thread: Thread, span: _Span) -> None:
    pc = abi_of(inferior.describe()).pc
    for _ in range(STEP_LIMIT):
        inferior.step(thread.id)
        if inferior.registers(thread.id, (pc,))[pc] not in span:
            return
    raise IpbpError(
        "safepoint-stuck",
        f"thread {thread.id} does not leave the bytes at {thread.pc:#x} within {STEP_LIMIT} instructions",
        "Continue until it has left that function's first instructions and try again.",
    )


def stacks(inferior: Inferior) -> list[Stack]:
    """Of all threads, as they are now."""
    return _stacks(inferior, inferior.threads(), inferior.regions())


def _stacks(inferior: Inferior, threads: Sequence[Thread], regions: Sequence[Region]) -> list[Stack]:
    starts = [region.start for region in regions]  # in address order
    abi, found = abi_of(inferior.describe()), []
    for thread in threads:
        content, link = _content(inferior, regions, starts, thread), 0
        if abi.link:
            registers = inferior.registers(thread.id, (abi.link, abi.signature))
            plain = (1 << abi.address_bits) - 1 & ~registers.get(abi.signature, 0)
            content, link = _unsigned(content, plain), registers[abi.link] & plain
        found.append(Stack(thread.id, thread.pc, content, link))
    return found


def _unsigned(content: bytes, plain: int) -> bytes:
    """Words with these bits only: return addresses are signed in their upper ones (Arm Architecture Reference Manual,
    "Pointer authentication")."""
    return array("Q", [word & plain for word in array("Q", content)]).tobytes()


def _content(inferior: Inferior, regions: Sequence[Region], starts: Sequence[int], thread: Thread) -> bytes:
    pointer = thread.stack_pointer
    if pointer is None:
        stack = abi_of(inferior.describe()).stack
        pointer = inferior.registers(thread.id, (stack,))[stack]
    top = (pointer + 7) & ~7
    at = bisect_right(starts, top) - 1
    region = regions[at] if at >= 0 else None
    if region is None or top >= region.end:
        return b""  # the thread has no stack (any more): nothing to return to
    return inferior.read(top, (min(region.end, top + _STACK_LIMIT) - top) & ~7)
