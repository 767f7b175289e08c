"""Which threads still run the old code of functions that were replaced.

A call that is under way ends in the code in which it began. For `main` or an event loop that may be never, and an
edit that seems to do nothing is the worst answer that a hot patcher can give: so it is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Sequence

from ipbp.host.journal import Journal
from ipbp.host.safepoint import Reach, Stack
from ipbp.protocol import FunctionChange, PatchPlan

_MOST = 20  # functions that are said one by one


@dataclass(frozen=True)
class Version:
    """One version of a function: `number` counts from 1, which is what the program began with (or the first one of a
    function that a patch brought). `size` may be 0 where it is not known."""

    function: str
    entry: int
    number: int
    address: int
    size: int
    is_newest: bool
    is_original: bool

    @property
    def body(self) -> tuple[int, int]:
        return body_of(self)


def body_of(row: Version | FunctionChange) -> tuple[int, int]:
    """Without its first byte: a word that points there is a function pointer and no address to come back to."""
    return row.address + 1, row.address + max(row.size, 1)


def versions(rows: Iterable[FunctionChange]) -> list[Version]:
    """All versions of the functions of these rows, which are those of all patches in force, oldest first. Of one that
    was removed the newest is the last that it had."""
    by_entry: dict[int, list[FunctionChange]] = {}
    for row in rows:
        by_entry.setdefault(row.entry, []).append(row)
    found = []
    for entry, changes in by_entry.items():
        first = changes[0]
        places = [] if first.status == "new" else [(entry, first.old_size, True)]
        places += [(row.address, row.size, False) for row in changes if row.status != "removed"]
        found += [
            Version(first.name, entry, number, address, size, number == len(places), is_original)
            for number, (address, size, is_original) in enumerate(places, 1)
        ]
    return found


def replaced_code(plan: PatchPlan, journal: Journal) -> list[Version]:
    """Every version of the functions that `plan` changes or takes away, but the one that it brings."""
    touched = {row.entry for row in plan.functions if row.status != "new"}
    removed = {row.entry for row in plan.functions if row.status == "removed"}
    earlier = [row for patch in journal.patches() if patch.number != plan.number for row in patch.functions]
    known = versions([*earlier, *plan.functions])
    return [row for row in known if row.entry in touched and (not row.is_newest or row.entry in removed)]


def still_running(stacks: Sequence[Stack], plan: PatchPlan, journal: Journal) -> list[str]:
    """A sentence for each function that `plan` changed or removed and of which a thread may be in an older version,
    or come back to one. `stacks`: as they were when the patch was applied; nothing here needs the program stopped. A
    stale word on a stack can make this say too much."""
    ranges: dict[str, list[tuple[int, int]]] = {}  # several functions may have one name
    for version in replaced_code(plan, journal):
        ranges.setdefault(version.function, []).append(version.body)
    reach = Reach(stacks, [part for parts in ranges.values() for part in parts])
    notes: list[str] = []
    for name, parts in ranges.items():
        threads = reach.users_of(parts)
        if threads and len(notes) < _MOST:
            noun = "thread" if len(threads) == 1 else "threads"
            which = ", ".join(map(str, threads[:4])) + (", ..." if len(threads) > 4 else "")
            notes.append(f"{noun} {which} may still be in the old '{name}': a call under way ends in its old code")
    return notes


def old_code(stacks: Sequence[Stack], journal: Journal) -> list[dict[str, Any]]:
    """For each thread that is in an old version of a function, or will come back to one, which: rows with `thread`,
    `function`, `version` and `newest`. Code of undone patches is not looked for."""
    known = versions([row for patch in journal.patches() for row in patch.functions])
    newest = {version.entry: version.number for version in known}
    old = [version for version in known if not version.is_newest and version.size > 1]
    reach = Reach(stacks, [row.body for row in old])
    return [
        {"thread": thread, "function": row.function, "version": row.number, "newest": newest[row.entry]}
        for row in old
        for thread in reach.users_of([row.body])
    ]
