"""Running the new version of a function again from its entry, with the arguments that the old call was given.

Three things must be as they were when the caller called: the stack, which the unwind table describes; the registers
that a function keeps for its caller, which are where that table says; and the arguments. What registers the new code
takes arguments from is read off the code. Each must still be there: never written on any way from the old entry to
where the call is now, or stored in the frame at once and left alone since. Unoptimised code does the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipbp.arch.x86_64_effects import ARGUMENTS, CLOBBERED, VECTOR_ARGUMENTS, Access, Effect, wholes_of
from ipbp.errors import Refusal
from ipbp.graph.frames import RETURN_ADDRESS, DescribedFunction, UnwindRow
from ipbp.stages.liveness import Flow, extent, flow_of, live_registers, reaching


@dataclass(frozen=True, slots=True)
class Restart:
    """`unwind`: how to get at the caller's registers. `arguments`: (register, place in the old frame, bytes) for those
    that are not in their registers any more."""

    unwind: UnwindRow
    arguments: tuple[tuple[str, int, int], ...]


def plan_restart(
    old: DescribedFunction,
    old_rows: Sequence[Effect] | None,
    offset: int,
    new: DescribedFunction,
    new_rows: Sequence[Effect] | None,
    is_innermost: bool,
    takes_current: bool = False,
) -> Restart | Refusal:
    """`offset`: of the old pc; of a frame that is not the innermost, of its return address. `takes_current`: arguments
    that were assigned to are passed as they are now. Refusals: `frame-not-described`, `frame-argument-gone`,
    `frame-layout-changed`."""
    unwind = old.unwind_at(offset)
    if unwind is None or unwind.base < 0 or unwind.saved.get(RETURN_ADDRESS) != -8 or unwind.lost:
        return _not_unwound(old.name)
    if old_rows is None or new_rows is None or not old.code:
        return _undecoded(old.name)
    taken = [(row.type, row.size) for row in old.parameters]
    if taken != [(row.type, row.size) for row in new.parameters] or old.result != new.result:
        return _other_arguments(old.name)
    before, after = flow_of(old, old_rows), flow_of(new, new_rows)
    if offset not in before.at:
        return _undecoded(old.name)
    passed = argument_registers(new)
    wanted = wholes_of(live_registers(after, passed)[0] & CLOBBERED)
    here = before.at[offset]
    passed_by = reaching(before, here)
    found = []
    for register in sorted(wanted):
        source = _source(before, old, register, here, passed_by, is_innermost, takes_current)
        if isinstance(source, str):
            return _gone(old, register, source)
        if source is not None:
            found.append((register, *source))
    changed = None if takes_current else _assigned_in_memory(before, old, passed_by)
    return changed or Restart(unwind, tuple(found))


def argument_registers(function: DescribedFunction) -> frozenset[str]:
    """Registers that its arguments may be in: at most one for every eight bytes (psABI, "Parameter Passing"), and one
    for the place of a result that is returned in memory."""
    has_place = function.result_size > 16 or (function.result_size == 0 and function.result != "void")
    general, vectors = int(has_place), 0
    for row in function.parameters:
        words = -(-max(row.size, 1) // 8)
        general += 0 if row.in_vector else words
        vectors += 0 if row.in_vector is False else words
    return frozenset((*ARGUMENTS[:general], *VECTOR_ARGUMENTS[:vectors]))


def _source(
    flow: Flow,
    old: DescribedFunction,
    register: str,
    here: int,
    passed_by: set[int],
    is_innermost: bool,
    takes_current: bool,
) -> tuple[int, int] | str | None:
    """Where the register's first value is: None for where it was, (place, size) in the frame, or why it is gone."""
    writers = [at for at in passed_by if register in wholes_of(flow.rows[at].writes) or flow.rows[at].is_call]
    if is_innermost and not writers:
        return None
    for at, row in enumerate(flow.rows):
        if at and at in flow.leads:
            break  # only what every call runs through
        stored = _stored(flow, at, register)
        if stored is not None:
            if at != here and at in passed_by:
                place, size = stored
                if takes_current or not _is_written(flow, old, place, size, at, passed_by):
                    return place, size
                return "it may have been assigned to since, or its address was taken"
            return "it is not stored yet: step on to the first line of the function"
        if register in wholes_of(row.writes) or row.is_call:
            break
    return "it is not kept"


def _stored(flow: Flow, at: int, register: str) -> tuple[int, int] | None:
    # `mov [frame], register` and its like for vectors.
    row = flow.rows[at]
    if not row.text.startswith(("mov", "vmov")) or register not in wholes_of(row.reads):
        return None
    for place, access in flow.places[at]:
        if access.writes and not access.is_indexed:
            return place, access.size
    return None


def _is_written(flow: Flow, old: DescribedFunction, place: int, size: int, store: int, passed_by: set[int]) -> bool:
    wanted = extent(old, place, size)
    for at in passed_by:
        for touched, access in flow.places[at]:
            if at != store and _may_write(access) and extent(old, touched, max(access.size, 1)) & wanted:
                return True
    return False


def _may_write(access: Access) -> bool:
    return access.writes or access.is_address


def _assigned_in_memory(flow: Flow, old: DescribedFunction, passed_by: set[int]) -> Refusal | None:
    """Arguments that the caller left on the stack are there, unless they were assigned to."""
    for row in old.parameters:
        if row.place is None or row.place < 0 or row.is_indirect:
            continue
        for at in passed_by:
            for touched, access in flow.places[at]:
                if _may_write(access) and row.place <= touched < row.place + max(row.size, 1):
                    return _gone(old, "", "it may have been assigned to since, or its address was taken", row.name)
    return None


def _gone(old: DescribedFunction, register: str, why: str, name: str = "") -> Refusal:
    order = [*ARGUMENTS]
    if not name and register in order and order.index(register) < len(old.parameters):
        name = old.parameters[order.index(register)].name
    what = f"the argument '{name}'" if name else f"what register {register} held"
    advice = "Use `--frame old`"
    if "assigned" in why:
        advice += ", or `--current-arguments` to pass what the arguments are now"
    return Refusal(
        "frame-argument-gone", f"'{old.name}' cannot begin again: {what} is gone; {why}", f"{advice}.", old.name
    )


def _other_arguments(name: str) -> Refusal:
    return Refusal(
        "frame-layout-changed",
        f"'{name}' cannot begin again with the arguments of this call: the new one takes or returns something else",
        "Use `--frame old`: the call that is under way ends in its old code.",
        name,
    )


def _not_unwound(name: str) -> Refusal:
    return Refusal(
        "frame-not-described",
        f"nothing says how to get back from '{name}' to its caller at this place",
        "Step to the next line and try again; or use `--frame old`.",
        name,
    )


def _undecoded(name: str) -> Refusal:
    return Refusal(
        "frame-not-described",
        f"the code of '{name}' cannot be read as instructions from this place on",
        "Use `--frame old`.",
        name,
    )
