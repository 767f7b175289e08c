"""A patch is in the process entirely or not at all.

`apply` looks at everything before it writes anything, writes the patch down in the journal, and keeps for each step
the way back (`rollback`). Whatever happens in between, a refusing kernel, a Ctrl-C, a bug, is answered by going that
way in reverse. The replacements, which make the program run new code, come last; once they are read back the journal
says so and the patch is in force. When the debugger itself dies in between, `recover` goes back from the journal.

Memory that a patch was linked into is taken away again only when it is proved that nothing leads there
(`reclaim`): threads may be in it for as long as they like, and pointers to it may be anywhere.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from functools import partial
from typing import Callable, Iterable, Optional, Sequence

from ipbp.errors import IpbpError, Refused
from ipbp.host import inject, safepoint
from ipbp.host.hooks import tell
from ipbp.host.inferior import Breakpoint, Inferior
from ipbp.host.initialise import initialise
from ipbp.host.journal import RECLAIMING, UNDOING, UNFINISHED, Journal, Opening, Patch, open_entry
from ipbp.host.loads import load_libraries
from ipbp.host.old_callers import running_callers
from ipbp.host.quiet import require_quiet
from ipbp.host.reclaim import reached
from ipbp.host.rollback import Steps, rolled_back, write_lost, write_surely
from ipbp.host.safepoint import Stack
from ipbp.host.verify import Places, is_one_of_both, verify_plan
from ipbp.protocol import Allocation, Call, PatchPlan, Quiet, Replacement, Segment


@dataclass(frozen=True)
class Prepared:
    """A plan with the bytes of its segments, the places that it replaces, and its entry in the journal: made while the
    program still ran."""

    plan: PatchPlan
    contents: tuple[bytes, ...]
    places: Places
    entry: Opening


@dataclass(frozen=True)
class Applied:
    """`moved`: threads that were stepped out of the way. `disarmed`: breakpoints that stay off, because they are
    inside rewritten bytes; to be given to `undo`. `stacks`: of all threads, at the moment of the patch. `notes`: what
    became of the program's hooks."""

    number: int
    moved: tuple[int, ...]
    disarmed: tuple[Breakpoint, ...]
    stacks: tuple[Stack, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Undone:
    """`notes`: calls of the patch's that were not made, each with the reason, and what became of the program's hooks.
    `stacks`: of all threads, at the moment of the undo."""

    number: int
    notes: tuple[str, ...]
    stacks: tuple[Stack, ...] = field(default=(), compare=False)


def prepare(plan: PatchPlan) -> Prepared:
    """Everything that needs no stop. Errors: `image-unreadable`, `image-short`."""
    contents = tuple(_content(plan.files[segment.file], segment) for segment in plan.segments)
    return Prepared(plan, contents, Places(plan.replacements), open_entry(plan))


def _content(file: str, segment: Segment) -> bytes:
    try:
        with open(file, "rb") as image:
            content = os.pread(image.fileno(), segment.size, segment.file_offset)
    except OSError as error:
        raise IpbpError("image-unreadable", f"{file}: {error.strerror}", "Try again.") from error
    if len(content) != segment.size:
        raise IpbpError("image-short", f"{file} is shorter than its plan says", "Report this as a bug.")
    return content


def apply(
    inferior: Inferior, prepared: Prepared, journal: Journal, last: Optional[Callable[[Steps], None]] = None
) -> Applied:
    """Bring a patch into the stopped inferior. `last`: a step of the caller's before the patch is in force.

    Errors: `Refused` with everything that is not as the plan expects (nothing was written); or what went wrong
    half-way, ending in "rolled back": memory is as before, byte for byte. `rollback-incomplete` when even that
    failed; then `recover` may be tried. `journal-unfinished` when `recover` must come first.
    """
    plan, places = prepared.plan, prepared.places
    require_finished(journal)
    regions = inferior.regions()  # of which only our own change before the end
    callers = [row for row in plan.callers if not row.on_undo]
    refusals = verify_plan(inferior, plan, regions, places)
    refusals += running_callers(inferior, callers, journal.patches())
    if refusals:
        raise Refused(refusals)
    require_quiet(inferior, plan.quiet)
    steps = Steps(inferior)
    try:
        journal.begin(prepared.entry)
        _write_segments(steps, prepared)
        load_libraries(steps, plan.loads)
        _make_calls(steps, plan)
        notes = _tell_before(steps, plan)
        cleared = steps.clear(plan.replacements, plan.forbidden, regions)
        _require_same_code(inferior, plan, places)
        # Beyond this point the program may run new code; everything that can fail has been tried, but for what new
        # variables do to get their values. That may call any function, and means the new ones: one thread runs it.
        _replace(steps, places, places.expected, places.replacements)
        initialise(steps, plan.initialisers)
        kept_off = _rearm_starts(steps, plan.replacements)
        if last is not None:
            last(steps)
        journal.commit(plan.number)
    except BaseException as cause:
        steps.go_back(cause)
        journal.rolled_back(plan.number, steps.memory_kept)
        error = rolled_back(cause)
        if error is None:
            raise
        raise error from cause
    notes += tell(inferior, [hook for hook in plan.hooks if not hook.is_before])
    return Applied(plan.number, tuple(cleared.moved), kept_off, tuple(cleared.stacks), tuple(notes))


def undo(inferior: Inferior, patch: Patch, journal: Journal, breakpoints: Iterable[Breakpoint] = ()) -> Undone:
    """Put back what a patch replaced, as far as its images are still loaded. It must be the newest in force.
    `breakpoints`: its `Applied.disarmed`, as long as the debugger is still the same one; they are armed again.

    Errors: `Refused` when memory is not as the patch left it, `undo-order`; or what went wrong half-way, ending in
    "rolled back": the patch is in force as before.
    """
    require_finished(journal)
    _require_newest(journal, patch)
    changes = patch.changes
    places = Places(changes)
    callers = [row for row in patch.plan.callers if row.on_undo]
    refusals = places.verify(inferior, places.replacements)
    refusals += running_callers(inferior, callers, ())
    if refusals:
        raise Refused(refusals)
    require_quiet(inferior, patch.plan.quiet if patch.hooks else Quiet())
    steps = Steps(inferior)
    try:
        journal.undoing(patch.number)
        notes = tell(inferior, [hook for hook in patch.hooks if hook.is_before], is_undo=True)
        cleared = steps.clear(changes, [change.interior for change in changes])
        _replace(steps, places, places.replacements, places.expected)
        steps.rearm([*steps.disarmed, *breakpoints])
        journal.undone(patch.number, not _undo_calls(patch.plan))
    except BaseException as cause:
        steps.go_back(cause)
        journal.undo_failed(patch.number)
        error = rolled_back(cause)
        if error is None:
            raise
        raise error from cause
    # Beyond this point the patch is undone, whatever becomes of the calls: its memory stays, so they can be left out.
    notes += tell(inferior, [hook for hook in patch.hooks if not hook.is_before], is_undo=True)
    left = _make_undo_calls(inferior, patch.plan)
    if not left and _undo_calls(patch.plan):
        journal.undone(patch.number, True)
    return Undone(patch.number, (*notes, *left), tuple(cleared.stacks))


def give_back(inferior: Inferior, journal: Journal) -> None:
    """Give back the memory of all undone patches that nothing leads to (any more): zeros for the next patch, or, when a
    patch was the first of its arena and is the last one left, no mapping at all. It never fails."""
    patches = [row for row in reversed(journal.all_patches()) if row.is_forgotten and row.plan.reclaimable]
    if not patches:
        return
    with contextlib.suppress(IpbpError):  # half given back: the next command goes on with it
        kept = reached(inferior, [patch.plan.reclaimable for patch in patches])
        for index, patch in enumerate(patches):
            if index not in kept and not _is_shared(patch.plan, journal):
                journal.reclaiming(patch.number)
                _give_back(inferior, patch.plan)
                journal.reclaimed(patch.number)


def require_quiet_for(inferior: Inferior, patches: Iterable[Patch]) -> None:
    """Errors: `program-busy` when an undo of these would now leave out calls of theirs."""
    for quiet in dict.fromkeys(patch.plan.quiet for patch in patches if _undo_calls(patch.plan)):
        require_quiet(inferior, quiet)


def recover(inferior: Inferior, journal: Journal) -> int:
    """Take back a patch, or finish an undo, that was torn off half-way: the number of that patch, 0 for none.

    Its memory stays mapped unless nothing leads there: the program may have run in it. Errors: `recover-unexpected`
    when the bytes are neither the old nor the new ones (nothing was written).
    """
    patch = journal.unfinished()
    if patch is None:
        return 0
    if patch.state == RECLAIMING:
        with contextlib.suppress(IpbpError):  # what cannot be given back is never used again
            _give_back(inferior, patch.plan)
        journal.reclaimed(patch.number)
        return patch.number
    pending = _still_changed(inferior, patch)
    if pending:
        steps = Steps(inferior)
        steps.clear(pending, [change.interior for change in pending])
        for change in pending:
            write_surely(inferior, change.address, change.expected)
        inferior.rearm(steps.disarmed)
    is_free = _is_free(inferior, patch, journal, was_in_force=bool(pending))
    if patch.state == UNDOING:
        journal.undone(patch.number, False)
        if is_free:
            journal.reclaiming(patch.number)
            _give_back(inferior, patch.plan)
            journal.reclaimed(patch.number)
        return patch.number
    if is_free:
        _give_back(inferior, patch.plan)
    # Half an arena is no arena: the next patch gets another one.
    has_memory = all(_is_there(inferior, block) for block in patch.plan.allocations)
    journal.rolled_back(patch.number, has_memory and not is_free)
    return patch.number


def _is_free(inferior: Inferior, patch: Patch, journal: Journal, was_in_force: bool) -> bool:
    """Whether nothing in the program knows of the memory of a patch that was torn off. What it was made to call may
    have kept pointers; of a patch of which nothing was in force nobody else has any."""
    plan = patch.plan
    if plan.calls or plan.loads or plan.hooks or plan.initialisers or _is_shared(plan, journal):
        return False
    if patch.state == UNFINISHED and not was_in_force:
        return True
    return bool(plan.reclaimable) and not reached(inferior, [plan.reclaimable])


def _write_segments(steps: Steps, prepared: Prepared) -> None:
    inferior, plan = steps.inferior, prepared.plan
    for block in plan.allocations:
        steps.will(partial(_release, steps, block))
        inject.allocate(inferior, block.address, block.size, block.protection)
    for segment, content in zip(plan.segments, prepared.contents):
        if not any(b.address <= segment.address < b.address + b.size for b in plan.allocations):
            steps.will(partial(_wipe, steps, segment.address, segment.size))
        write_surely(inferior, segment.address, content)


def _release(steps: Steps, block: Allocation) -> None:
    # What is there can only be ours: the place was free when we began, and nobody but us ran since.
    if steps.memory_kept or not _is_there(steps.inferior, block):
        return
    try:
        inject.release(steps.inferior, block.address, block.size)
    except IpbpError:
        if _is_there(steps.inferior, block):
            raise


def _is_there(inferior: Inferior, block: Allocation) -> bool:
    return inject.is_mapped(inferior.regions(), block.address, block.size, block.protection)


def _wipe(steps: Steps, address: int, size: int) -> None:
    if not steps.memory_kept:
        write_surely(steps.inferior, address, bytes(size))


def _make_calls(steps: Steps, plan: PatchPlan) -> None:
    calls = [call for call in plan.calls if not call.on_undo]
    if not calls:
        return
    steps.will(partial(_take_back_calls, steps, plan))
    # A call that fails may have left pointers into the patch, and to take back what was never done is no better
    # (libgcc aborts the program when it is told to forget a table that it does not know): so the memory stays.
    steps.memory_kept = True
    for call in calls:
        result = steps.inferior.call(call.address, call.arguments)
        if call.says_so and not result & 0xFF:
            fact = f"the program could not {call.purpose}: the function at {call.address:#x} says no"
            raise IpbpError("inferior-call", fact, "Look at the program's memory; then try again.")
        _store_result(steps, call, result)
    steps.memory_kept = False


def _store_result(steps: Steps, call: Call, result: int) -> None:
    if call.result_at is None:
        return
    steps.will(partial(_wipe, steps, call.result_at, 8))
    write_surely(steps.inferior, call.result_at, (result & (1 << 64) - 1).to_bytes(8, "little"))


def _take_back_calls(steps: Steps, plan: PatchPlan) -> None:
    if steps.memory_kept:
        return
    steps.memory_kept = True
    for call in plan.calls:
        if call.on_undo:
            steps.inferior.call(call.address, call.arguments)
    steps.memory_kept = False


def _tell_before(steps: Steps, plan: PatchPlan) -> list[str]:
    # What did not come back may have left pointers to its description.
    notes = tell(steps.inferior, [hook for hook in plan.hooks if hook.is_before])
    steps.memory_kept = steps.memory_kept or bool(notes)
    return notes


def _require_same_code(inferior: Inferior, plan: PatchPlan, places: Places) -> None:
    # What was compared before the calls has to be compared again: the program ran.
    if not plan.loads and not plan.hooks and all(call.on_undo for call in plan.calls):
        return
    refusals = places.verify(inferior, places.expected)
    if refusals:
        raise Refused(refusals)


def _replace(steps: Steps, places: Places, before: Sequence[bytes], contents: Sequence[bytes]) -> None:
    inferior, addresses = steps.inferior, [change.address for change in places.changes]
    for address, content in zip(addresses, before):
        steps.will(partial(write_surely, inferior, address, content))
    inferior.write_all(list(zip(addresses, contents)))
    found = places.read(inferior)
    if found != contents:
        lost = next(change for change, *both in zip(places.changes, found, contents) if both[0] != both[1])
        raise write_lost(lost.address, len(lost.expected))


def _rearm_starts(steps: Steps, changes: Iterable[Replacement]) -> tuple[Breakpoint, ...]:
    # A trap anywhere but on the first byte would change the new bytes instead of an instruction.
    starts = {change.address for change in changes}
    steps.rearm([point for point in steps.disarmed if point.address in starts])
    return tuple(point for point in steps.disarmed if point.address not in starts)


def _undo_calls(plan: PatchPlan) -> list[Call]:
    # Destructors of what it initialised run at exit, and may throw and catch: its unwind table stays.
    return [call for call in plan.calls if call.on_undo and not plan.initialisers]


def _make_undo_calls(inferior: Inferior, plan: PatchPlan) -> tuple[str, ...]:
    # What is left out is told and does no harm, so nothing here may fail an undo that has been done. What is called
    # and then torn from waiting for a lock does: LLVM's unwinder keeps readers out for as long as a writer waits.
    code = [(s.address, s.address + s.size) for s in plan.segments if "x" in s.protection]
    left = []
    for call in _undo_calls(plan):
        try:
            if code and safepoint.users(inferior, code):
                left.append(f"{call.purpose}: threads are still in the code of the patch")
            else:
                require_quiet(inferior, plan.quiet)
                inferior.call(call.address, call.arguments)
        except IpbpError as error:
            left.append(f"{call.purpose}: {error.fact}")
    return tuple(left)


def _is_shared(plan: PatchPlan, journal: Journal) -> bool:
    blocks = [(block.address, block.address + block.size) for block in plan.allocations]
    return any(journal.uses(start, end, besides=plan.number) for start, end in blocks)


def _give_back(inferior: Inferior, plan: PatchPlan) -> None:
    # Once more does no harm: what is gone is not looked for, and somebody else's memory is left alone.
    for block in plan.allocations:
        if _is_there(inferior, block):
            inject.release(inferior, block.address, block.size)
    blocks = [(block.address, block.address + block.size) for block in plan.allocations]
    for start, end in plan.reclaimable or [(row.address, row.address + row.size) for row in plan.segments]:
        if not any(low <= start < high for low, high in blocks):
            write_surely(inferior, start, bytes(end - start))


def _still_changed(inferior: Inferior, patch: Patch) -> list[Replacement]:
    found = list(zip(patch.changes, Places(patch.changes).read(inferior)))
    strange = [change.name for change, memory in found if memory is None or not is_one_of_both(memory, change)]
    if strange:
        raise IpbpError(
            "recover-unexpected",
            f"patch {patch.number} was interrupted, and {', '.join(strange)} is neither as before nor as after it",
            "Restart the program.",
        )
    return [change for change, memory in found if memory != change.expected]


def require_finished(journal: Journal) -> None:
    """Errors: `journal-unfinished`."""
    patch = journal.unfinished()
    if patch is not None:
        raise IpbpError(
            "journal-unfinished",
            f"patch {patch.number} was interrupted and has not been put right",
            "`hotpatch status` puts it right.",
        )


def _require_newest(journal: Journal, patch: Patch) -> None:
    numbers = [other.number for other in journal.patches()]
    if not numbers or numbers[-1] != patch.number:
        raise IpbpError(
            "undo-order",
            f"patch {patch.number} is not the newest one",
            "Undo the newer ones first: `hotpatch undo N` takes back all after patch N.",
        )
