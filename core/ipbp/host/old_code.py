"""Which threads still run the old code of a function that was just replaced.

A call that is under way ends in the code in which it began. For `main` or an event loop that may be never, and an
edit that seems to do nothing is the worst answer that a hot patcher can give: so it is said.
"""

from __future__ import annotations

from typing import Sequence

from ipbp.host.journal import Journal
from ipbp.host.safepoint import Stack, users_of
from ipbp.protocol import FunctionChange, PatchPlan

_MOST = 20  # functions that are looked for one by one


def still_running(stacks: Sequence[Stack], plan: PatchPlan, journal: Journal) -> list[str]:
    """A sentence for each function that `plan` changed or removed and of which a thread may be in an older version,
    or come back to one. `stacks`: as they were when the patch was applied; nothing here needs the program stopped. A
    stale word on a stack can make this say too much."""
    earlier = [row for patch in journal.patches() if patch.number != plan.number for row in patch.functions]
    ranges: dict[str, list[tuple[int, int]]] = {}  # several functions may have one name
    for row in plan.functions:
        if row.status != "new":
            ranges.setdefault(row.name, []).extend(_versions(row, earlier))
    every = [part for parts in ranges.values() for part in parts]
    if not every or not users_of(stacks, every):
        return []
    notes = []
    for name, parts in list(ranges.items())[:_MOST]:
        threads = users_of(stacks, parts)
        if threads:
            noun = "thread" if len(threads) == 1 else "threads"
            which = ", ".join(map(str, threads[:4])) + (", ..." if len(threads) > 4 else "")
            notes.append(f"{noun} {which} may still be in the old '{name}': a call under way ends in its old code")
    return notes


def _versions(now: FunctionChange, earlier: list[FunctionChange]) -> list[tuple[int, int]]:
    """Where all older versions of a function are: the original at its entry, and those of earlier patches. Without
    their first bytes: a word that points there is a function pointer and no address to come back to."""
    before = [row for row in earlier if row.entry == now.entry and row.status != "removed"]
    original = (before or [now])[0]
    return [
        (original.entry + 1, original.entry + original.old_size),
        *((row.address + 1, row.address + row.size) for row in before),
    ]
