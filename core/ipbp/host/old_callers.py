"""Whether a thread is in old code that may not call what a patch, or an undo, brings."""

from __future__ import annotations

from typing import Iterable, Sequence

from ipbp.errors import Refusal
from ipbp.host import safepoint
from ipbp.host.inferior import Inferior, Ranges
from ipbp.host.journal import Patch
from ipbp.host.safepoint import Stack
from ipbp.protocol import OldCaller

RUNNING = "caller-running"


def running_callers(inferior: Inferior, callers: Iterable[OldCaller], patches: Sequence[Patch]) -> list[Refusal]:
    """`caller-running` for each of these that a thread is in or will come back to. `patches`: those in force."""
    ranges = {row: _code_of(row, patches) for row in callers}
    every = [part for parts in ranges.values() for part in parts]
    if not every:
        return []
    stacks = safepoint.stacks(inferior)
    near = safepoint.users_of(stacks, every)
    places = {
        stack.thread: places_of(stack, inferior.return_addresses(stack.thread), every)
        for stack in stacks
        if stack.thread in near
    }
    found = []
    for row, parts in ranges.items():
        inside = [
            thread for thread, rows in places.items() if any(low <= at < high for at in rows for low, high in parts)
        ]
        if inside:
            found.append(_refusal(row, inside[0]))
    return found


def places_of(stack: Stack, addresses: Sequence[int], ranges: Ranges) -> list[int]:
    """Where the thread is, where it will come back to by its debugger, and what of `ranges` is on its stack beyond the
    last of these: debuggers cannot unwind everything (lldb 19 ends in glibc's _IO_new_file_underflow)."""
    end = 0
    if addresses:
        end = stack.content.rfind(addresses[-1].to_bytes(8, "little")) + 8
    link = [stack.link] if stack.link else []
    return [stack.pc, *link, *addresses, *safepoint.words_in(stack.content[max(end, 0) & ~7 :], ranges)]


def _code_of(row: OldCaller, patches: Sequence[Patch]) -> list[tuple[int, int]]:
    # Without first bytes: a thread there will run the jump that is written there.
    earlier = []
    if not row.on_undo:
        functions = [change for patch in patches for change in patch.functions]
        earlier = [change for change in functions if change.entry == row.start and change.status != "removed"]
    versions = [(row.start, earlier[0].old_size if earlier else row.size)]
    versions += [(change.address, change.size) for change in earlier]
    if row.is_same:
        versions.pop()
    return [(start + 1, start + size) for start, size in versions if size > 1]


def _refusal(row: OldCaller, thread: int) -> Refusal:
    return Refusal(
        RUNNING,
        f"thread {thread} is in the old code of '{row.caller}', which calls '{row.callee}', and {row.why}",
        f"Try again when it has left '{row.caller}', or restart the program{row.way_out}.",
        row.callee,
        row.file,
    )
