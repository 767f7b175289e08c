"""What the debugger knows of the patches: symbols of code that is current or still runs, and breakpoints where code
runs that somebody comes to.

After fifty patches of one function there are fifty versions of it, of which one is called. Their symbols would all be
listed, and a breakpoint on the function would have fifty-one places. So the symbols of a patch are taken away when each
of its functions has a newer version and no thread is in its code any more, and come back when an undo makes it current.
Breakpoints that have a place in the new code have none in the old: at its entry is the jump to the new code, where they
would be hit once more.
"""

from __future__ import annotations

from itertools import chain
from typing import Iterator, Sequence

from ipbp.host.inferior import Inferior, OldCode
from ipbp.host.journal import UNDONE, Journal, Patch
from ipbp.host.old_code import Version, body_of, versions
from ipbp.host.safepoint import Reach, Stack
from ipbp.host.texts import texts_of
from ipbp.protocol import FunctionChange, PatchPlan

_JUMP = 5  # bytes of the jump at a replaced entry (stages.entries)

_announced: dict[str, tuple[tuple[int, int], ...]] = {}
"""Patch files whose symbols this debugger has, with their code; their names are never used twice."""


def settle(inferior: Inferior, journal: Journal, stacks: Sequence[Stack]) -> float:
    """Bring the debugger up to date with the journal, patches of earlier debuggers included. `stacks`: of all threads,
    as they are or were a moment ago. The milliseconds that the program was stopped for it."""
    patches = journal.patches()
    known = versions([row for patch in patches for row in patch.functions])
    undone = [(patch, row) for patch in journal.all_patches() if patch.state == UNDONE for row in patch.plan.functions]
    codes = [*_announced.values(), *(part for patch in patches for part in _code(patch.plan).values())]
    bodies = [*(row.body for row in known), *(body_of(row) for _, row in undone)]
    reach = Reach(stacks, [*chain.from_iterable(codes), *bodies])
    current = {version.address for version in known if version.is_newest}
    wanted: dict[str, tuple[tuple[int, int], ...]] = {}
    for patch in patches:
        code = _code(patch.plan)
        if _is_current(patch, current) or any(map(reach.users_of, code.values())):
            wanted.update(code)
    gone = [file for file, code in _announced.items() if file not in wanted and not reach.users_of(code)]
    for file in gone:
        del _announced[file]
    come = {file: code for file, code in wanted.items() if file not in _announced}
    stopped = inferior.exchange(gone, list(come)) if gone or come else 0.0
    _announced.update(come)
    inferior.retire(_left(known, reach))
    inferior.mark([*_running(known, reach), *_undone(undone, reach, stacks)], texts_of(journal))
    return stopped


def _is_current(patch: Patch, current: set[int]) -> bool:
    plan = patch.plan
    return bool(plan.data or plan.loads or not patch.functions) or any(
        row.address in current for row in patch.functions
    )


def _code(plan: PatchPlan) -> dict[str, tuple[tuple[int, int], ...]]:
    """The code in each file."""
    parts: dict[str, tuple[tuple[int, int], ...]] = dict.fromkeys(plan.files, ())
    for row in plan.segments:
        if "x" in row.protection:
            parts[plan.files[row.file]] += ((row.address, row.address + row.size),)
    return parts


def _running(known: Sequence[Version], reach: Reach) -> Iterator[OldCode]:
    """Old versions that some thread is in or will come back to."""
    newest = {row.entry: row.number for row in known}
    for row in known:
        threads = reach.users_of([row.body]) if not row.is_newest and row.size > 1 else ()
        if threads:
            text = f"old code, version {row.number} of {newest[row.entry]}"
            yield OldCode(row.address, row.address + row.size, text, tuple(threads))


def _undone(undone: Sequence[tuple[Patch, FunctionChange]], reach: Reach, stacks: Sequence[Stack]) -> Iterator[OldCode]:
    """Code of undone patches likewise."""
    for patch, row in undone:
        threads = reach.users_of([body_of(row)])
        threads += [stack.thread for stack in stacks if stack.pc == row.address and stack.thread not in threads]
        if threads:
            text = f"code of patch {patch.number}, which was undone"
            yield OldCode(row.address, row.address + row.size, text, tuple(threads))


def _left(known: Sequence[Version], reach: Reach) -> list[tuple[int, int]]:
    """Code that nobody comes to any more: old versions that no thread is in, and the jumps at the entries."""
    ranges = []
    for version in known:
        if version.is_newest:
            continue
        if version.size > 1 and not reach.users_of([version.body]):
            ranges.append((version.address, version.address + version.size))
        elif version.is_original:
            ranges.append((version.address, version.address + _JUMP))
    return ranges
