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
    moved = []
    for thread in inferior.threads():
        if _is_inside(ranges, thread.pc):
            _step_out(inferior, thread, ranges)
            moved.append(thread.id)
    held = users(inferior, ranges)
    if held:
        names = ", ".join(map(str, held))
        raise IpbpError(
            "safepoint-frame",
            f"thread {names} will return into bytes that would change",
            "Continue for a moment and try again.",
        )
    return moved


def users(inferior: Inferior, ranges: Ranges) -> list[int]:
    """Ids of the threads that are inside `ranges` or have a word on their stack that points there."""
    description = inferior.describe()
    regions = inferior.regions()
    return [
        thread.id
        for thread in inferior.threads()
        if _is_inside(ranges, thread.pc) or _has_pointer(inferior, description, regions, thread, ranges)
    ]


def _step_out(inferior: Inferior, thread: Thread, ranges: Ranges) -> None:
    for _ in range(STEP_LIMIT):
        inferior.step(thread.id)
        if not _is_inside(ranges, inferior.registers(thread.id, ("rip",))["rip"]):
            return
    raise IpbpError(
        "safepoint-stuck",
        f"thread {thread.id} does not leave the bytes at {thread.pc:#x} within {STEP_LIMIT} instructions",
        "Continue until it has left that function's first instructions and try again.",
    )


def _has_pointer(
    inferior: Inferior, description: Description, regions: list[Region], thread: Thread, ranges: Ranges
) -> bool:
    top = (_stack_pointer(inferior, description, thread) + 7) & ~7
    at = bisect_right([region.start for region in regions], top) - 1
    if at < 0 or top >= regions[at].end:
        return False  # the thread has no stack (any more): nothing to return to
    stack = inferior.read(top, (min(regions[at].end, top + _STACK_LIMIT) - top) & ~7)
    lowest = min(start for start, _ in ranges)
    highest = max(end for _, end in ranges)
    words = array("Q", stack)
    return any(_is_inside(ranges, word) for word in [word for word in words if lowest <= word < highest])


def _stack_pointer(inferior: Inferior, description: Description, thread: Thread) -> int:
    # The kernel's answer is ten times faster than a debugger's, which looks at the whole frame.
    if description.local:
        where = procfs.system_call(description.pid, thread.id)
        if where is not None:
            return where.stack_pointer
    return inferior.registers(thread.id, ("rsp",))["rsp"]


def _is_inside(ranges: Ranges, address: int) -> bool:
    return any(start <= address < end for start, end in ranges)
