"""Which threads still run the old code of a function that was just replaced.

A call that is under way ends in the code in which it began. For `main` or an event loop that may be never, and an
edit that seems to do nothing is the worst answer that a hot patcher can give: so it is said.
"""

from __future__ import annotations

from ipbp.host import safepoint
from ipbp.host.inferior import Inferior
from ipbp.host.journal import Journal
from ipbp.protocol import FunctionChange, PatchPlan

_MOST = 20  # functions that are looked for one by one


def still_running(inferior: Inferior, plan: PatchPlan, journal: Journal) -> list[str]:
    """A sentence for each changed function of `plan` of which a thread may be in an older version, or come back to
    one. The program is stopped; the patch is applied. A stale word on a stack can make this say too much."""
    earlier = [row for patch in journal.patches() if patch.number != plan.number for row in patch.plan.functions]
    ranges = {row.name: _versions(row, earlier) for row in plan.functions if row.status == "changed"}
    every = [part for parts in ranges.values() for part in parts]
    if not every or not safepoint.users(inferior, every):
        return []
    notes = []
    for name, parts in list(ranges.items())[:_MOST]:
        threads = safepoint.users(inferior, parts)
        if threads:
            noun = "thread" if len(threads) == 1 else "threads"
            which = ", ".join(map(str, threads[:4])) + (", ..." if len(threads) > 4 else "")
            notes.append(f"{noun} {which} may still be in the old '{name}': a call under way ends in its old code")
    return notes


def _versions(now: FunctionChange, earlier: list[FunctionChange]) -> list[tuple[int, int]]:
    """Where all older versions of a function are: the original at its entry, and those of earlier patches."""
    before = [row for row in earlier if row.entry == now.entry and row.status != "removed"]
    original = (before or [now])[0]
    return [
        (original.entry, original.entry + original.old_size),
        *((row.address, row.address + row.size) for row in before),
    ]
