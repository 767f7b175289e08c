"""Plan: everything that the plugin will do to the inferior, as one value.

The bytes are final and in the patch file; what is left is to say where they go, which few bytes of the running
program change (`stages.entries`), and what has to be called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ipbp.errors import Refused
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.layout import Layout
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.protocol import Allocation, Call, FunctionChange, PatchPlan, Segment
from ipbp.stages.entries import Entry, rewrite_entries
from ipbp.stages.select import Replaced
from ipbp.stages.slots import rewrite_slots


@dataclass(frozen=True, slots=True)
class LinkedGroup:
    """What goes to one arena: its units, for each of them its functions that have an old entry, and their patch
    file with `segments` in it."""

    file: Path
    units: Sequence[Unit]
    replaced: Sequence[Sequence[Replaced]]
    layout: Layout
    segments: Sequence[Segment]


def plan(
    *,
    number: int,
    groups: Sequence[LinkedGroup],
    images: Sequence[LoadedImage],
    allocations: Sequence[Allocation],
    read: MemoryReader,
    entries: Mapping[int, bytes] | None = None,
    functions: Sequence[FunctionChange] = (),
) -> PatchPlan:
    """The plan of patch `number`.

    `images`: those that the units are parts of. `entries`: address -> bytes of what earlier patches wrote over
    entries.

    Errors: `Refused` with every `entry-*` refusal; all refusals of layout and relocate must be dealt with before.
    """
    index = {image.key: number for number, image in enumerate(images)}
    rows = [
        Entry(
            name=row.name,
            file=unit.name,
            entry=row.entry,
            size=row.old_size,
            target=int(columns.block[row.block]) if row.by_way_of == UNBOUND else row.by_way_of,
            image=index[unit.image],
            targets=row.targets,
        )
        for group in groups
        for unit, columns, replaced in zip(group.units, group.layout.units, group.replaced, strict=True)
        for row in replaced
    ]
    replacements, refusals = rewrite_entries(rows, images, read, entries or {})
    slots, unread = rewrite_slots(groups, index, read)
    replacements, refusals = (*replacements, *slots), [*refusals, *unread]
    if refusals:
        raise Refused(refusals)
    return PatchPlan(
        number=number,
        files=tuple(str(group.file) for group in groups),
        allocations=tuple(allocations),
        segments=tuple(replace(row, file=file) for file, group in enumerate(groups) for row in group.segments),
        replacements=replacements,
        calls=tuple(call for group in groups for call in _calls(group.layout)),
        # A thread at the first byte runs the jump as a whole; one further in would run half of it.
        forbidden=tuple((row.address + 1, row.address + len(row.replacement)) for row in replacements),
        functions=tuple(functions),
        images=tuple(image.identity for image in images),
    )


def _calls(layout: Layout) -> list[Call]:
    calls = [
        Call(slot.resolver, (), f"choose the implementation of {slot.name}", result_at=slot.address)
        for slot in layout.slots
        if slot.value == UNBOUND
    ]
    if layout.unwind is None:
        return calls
    # Without an unwinder in the process nothing ever walks through the new code.
    table = layout.unwind.address
    for row in layout.registrations:
        arguments: tuple[int, ...] = (table, row.record) if row.unwinder.takes_record else (table,)
        says_so = row.unwinder.base is not None
        if row.unwinder.base is not None:
            arguments = (table, layout.unwind.rows, row.unwinder.base)
        calls.append(Call(row.unwinder.register, arguments, "register the unwind table", says_so=says_so))
        calls.append(Call(row.unwinder.deregister, (table,), "take the unwind table back", on_undo=True))
    return calls
