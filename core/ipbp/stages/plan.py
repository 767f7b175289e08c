"""Plan: everything that the plugin will do to the inferior, as one value.

The bytes are final and in the patch file; what is left is to say where they go and which few bytes of the running
program change: the entries of the functions that were replaced. Each is compared now with what memory really holds,
and the plan says what must be there when it is applied. An entry that an earlier patch rewrote holds that patch's
jump, which the journal knows; only the jump is exchanged then, and the old function's shape does not matter any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ipbp.arch.x86_64_entry import ENDBR64, JUMP_SIZE, OldEntry, check_entry, jump, jump_place
from ipbp.errors import Refusal, Refused
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.layout import Layout
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.protocol import Allocation, Call, FunctionChange, PatchPlan, Replacement, Segment
from ipbp.stages.arena import REACH
from ipbp.stages.layout import CODE_ALIGNMENT
from ipbp.stages.select import Replaced

_LONGEST_PADDING = 64
"""No compiler aligns code further than a cache line. A longer gap holds something that has no symbol."""


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
        _Entry(row.name, unit.name, row.entry, row.old_size, int(columns.block[row.block]), index[unit.image])
        for group in groups
        for unit, columns, replaced in zip(group.units, group.layout.units, group.replaced, strict=True)
        for row in replaced
    ]
    replacements, refusals = _replacements(rows, images, read, entries or {})
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


@dataclass(frozen=True, slots=True)
class _Entry:
    """`size` of the old code, 0 where no old block tells. `image`: row of the image that the function belongs to."""

    name: str
    file: str
    entry: int
    size: int
    target: int
    image: int


def _size(row: _Entry, loaded: LoadedImage) -> int:
    # A function without an old block (it is an alias, say): the image knows its size.
    if row.size:
        return row.size
    symbols = loaded.symbols
    same = slice(*np.searchsorted(symbols.address, [row.entry, row.entry + 1]).tolist())
    return int(symbols.size[same].max(initial=0))


def _replacements(
    found: Sequence[_Entry], images: Sequence[LoadedImage], read: MemoryReader, entries: Mapping[int, bytes]
) -> tuple[tuple[Replacement, ...], list[Refusal]]:
    rows = [replace(row, size=_size(row, images[row.image])) for row in found]
    places = [_rewritten_place(row, entries) for row in rows]
    whole = [(row.entry, row.size + _padding_after(row, images[row.image])) for row in rows]
    # One round trip: an earlier jump where there is one, else the old code with its padding.
    ranges = [(place, len(entries[place])) if place else code for place, code in zip(places, whole, strict=True)]
    replacements: list[Replacement] = []
    refusals: list[Refusal] = []
    for row, place, content in zip(rows, places, read(ranges), strict=True):
        change, refused = _next_jump(row, place, content, entries) if place else _first_jump(row, content)
        refusals += refused
        if change is not None:
            replacements.append(change)
    return tuple(replacements), refusals


def _rewritten_place(row: _Entry, entries: Mapping[int, bytes]) -> int:
    # Where an earlier patch wrote its jump over this entry; 0 when none did.
    return next((place for place in (row.entry, row.entry + len(ENDBR64)) if place in entries), 0)


def _padding_after(row: _Entry, loaded: LoadedImage) -> int:
    # Bytes between the function's end and whatever comes next: a symbol, or the end of the section.
    end = row.entry + row.size
    if not loaded.start <= row.entry < loaded.end:
        return -end % CODE_ALIGNMENT  # the function is in the arena
    section_end = next((stop for _name, start, stop in loaded.sections if start <= row.entry < stop), end)
    following = int(np.searchsorted(loaded.symbols.address, end))
    next_symbol = int(loaded.symbols.address[following]) if following < len(loaded.symbols.address) else section_end
    gap = min(section_end, next_symbol) - end
    return gap if 0 < gap <= _LONGEST_PADDING else 0


def _first_jump(row: _Entry, content: bytes | None) -> tuple[Replacement | None, tuple[Refusal, ...]]:
    if not content:
        return None, (_unreadable(row),)
    code, after = content[: row.size], content[row.size :]
    refused = check_entry(OldEntry(row.name, row.entry, code, after))
    if refused:
        return None, tuple(replace(refusal, file=row.file) for refusal in refused)
    place = jump_place(row.entry, code)
    return _jump_at(row, place, content[place - row.entry :][:JUMP_SIZE])


def _next_jump(
    row: _Entry, place: int, content: bytes | None, entries: Mapping[int, bytes]
) -> tuple[Replacement | None, tuple[Refusal, ...]]:
    if content != entries[place]:
        return None, (_changed_since(row),)
    return _jump_at(row, place, content)


def _jump_at(row: _Entry, place: int, expected: bytes) -> tuple[Replacement | None, tuple[Refusal, ...]]:
    if abs(row.target - place) >= REACH:
        return None, (_out_of_reach(row),)
    return Replacement(place, expected, jump(place, row.target), row.name, row.image), ()


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
        calls.append(Call(row.unwinder.register, (table, row.record), "register the unwind table"))
        calls.append(Call(row.unwinder.deregister, (table,), "take the unwind table back", on_undo=True))
    return calls


def _unreadable(row: _Entry) -> Refusal:
    return Refusal(
        "entry-unreadable",
        f"the code of '{row.name}' at {row.entry:#x} cannot be read",
        "The library that holds it was unloaded, or the program is ending: start it again.",
        row.name,
        row.file,
    )


def _changed_since(row: _Entry) -> Refusal:
    return Refusal(
        "entry-changed",
        f"the entry of '{row.name}' at {row.entry:#x} does not hold the jump that the last patch wrote there",
        "Something else writes to the program's code; undo the patches, or restart the program.",
        row.name,
        row.file,
    )


def _out_of_reach(row: _Entry) -> Refusal:
    return Refusal(
        "entry-out-of-reach",
        f"the new code of '{row.name}' lies 2 GiB or more from its entry at {row.entry:#x}",
        "Undo earlier patches, so that memory nearer to the program is free.",
        row.name,
        row.file,
    )
