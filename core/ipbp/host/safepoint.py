"""No thread inside bytes that are about to change: neither with its pc nor with an address to come back to.

A thread with its pc there is stepped out, one instruction at a time, all others held. A return address there is
rare (an entry that begins with a short indirect call, or a signal that arrived in those few bytes) and fatal, and
nothing can be done but wait; so the stacks are searched for one. Any word between a thread's stack pointer and the
bottom of its stack counts. That needs no unwinder, sees through signal frames and costs microseconds; and since the
first byte of a function is not among the ranges, ordinary function pointers do not look like one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.host.inferior import Inferior, Ranges, Thread
from ipbp.protocol import Description, Region

STEP_LIMIT = 64
"""Instructions that a thread is stepped before we give up: a few bytes hold few, but some repeat themselves."""

_STACK_LIMIT = 1 << 20  # bytes of a stack that are searched, from its innermost end


def clear(inferior: Inferior, ranges: Ranges) -> list[int]:
    """Step threads out of the half-open `ranges`; the ids of those that were moved.

    Errors: `safepoint-stuck` when a thread does not leave, `safepoint-frame` when one will come back to there.
    """
    if not ranges:
        return []
    span = _Span(ranges)
    threads = inferior.threads()
    inside = [thread for thread in threads if thread.pc in span]
    for thread in inside:
        _step_out(inferior, thread, span)
    held = _users(inferior, inferior.threads() if inside else threads, span)
    if held:
        names = ", ".join(map(str, held))
        raise IpbpError(
            "safepoint-frame",
            f"thread {names} will return into bytes that would change",
            "Continue for a moment and try again.",
        )
    return [thread.id for thread in inside]


def users(inferior: Inferior, ranges: Ranges) -> list[int]:
    """Ids of the threads that are inside `ranges` or have a word on their stack that points there."""
    return _users(inferior, inferior.threads(), _Span(ranges))


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

    def has_any(self, words: array[int]) -> bool:
        lowest, highest = self._starts[0], self._ends[-1]
        return any(word in self for word in [word for word in words if lowest <= word < highest])


def _users(inferior: Inferior, threads: list[Thread], span: _Span) -> list[int]:
    description = inferior.describe()
    regions = inferior.regions()
    return [
        thread.id
        for thread in threads
        if thread.pc in span or span.has_any(_stack(inferior, description, regions, thread))
    ]


def _step_out(inferior: Inferior, thread: Thread, span: _Span) -> None:
    for _ in range(STEP_LIMIT):
        inferior.step(thread.id)
        if inferior.registers(thread.id, ("rip",))["rip"] not in span:
            return
    raise IpbpError(
        "safepoint-stuck",
        f"thread {thread.id} does not leave the bytes at {thread.pc:#x} within {STEP_LIMIT} instructions",
        "Continue until it has left that function's first instructions and try again.",
    )


def _stack(inferior: Inferior, description: Description, regions: list[Region], thread: Thread) -> array[int]:
    top = (_stack_pointer(inferior, description, thread) + 7) & ~7
    region = next((region for region in regions if region.start <= top < region.end), None)
    if region is None:
        return array("Q")  # the thread has no stack (any more): nothing to return to
    return array("Q", inferior.read(top, (min(region.end, top + _STACK_LIMIT) - top) & ~7))


def _stack_pointer(inferior: Inferior, description: Description, thread: Thread) -> int:
    # The kernel's answer is ten times faster than a debugger's, which looks at the whole frame.
    if description.local:
        where = procfs.system_call(description.pid, thread.id)
        if where is not None:
            return where.stack_pointer
    return inferior.registers(thread.id, ("rsp",))["rsp"]
