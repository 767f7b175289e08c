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


def plan(
    *,
    number: int,
    image: Path,
    units: Sequence[Unit],
    replaced: Sequence[Sequence[Replaced]],
    layout: Layout,
    segments: Sequence[Segment],
    allocations: Sequence[Allocation],
    loaded: LoadedImage,
    read: MemoryReader,
    register_frame: tuple[int, int] | None,
    entries: Mapping[int, bytes] | None = None,
    functions: Sequence[FunctionChange] = (),
) -> PatchPlan:
    """The plan of patch `number`, whose file is `image` with `segments` in it.

    `replaced`: for each unit its functions that have an old entry. `loaded`: the image that holds those entries.
    `register_frame`: addresses of libgcc's __register_frame_info and __deregister_frame_info, where the process has
    them. `entries`: address -> bytes of what earlier patches wrote over entries.

    Errors: `Refused` with every `entry-*` refusal; all refusals of layout and relocate must be dealt with before.
    """
    rows = [
        _Entry(row.name, unit.name, row.entry, _size(row, loaded), int(columns.block[row.block]))
        for unit, columns, group in zip(units, layout.units, replaced, strict=True)
        for row in group
    ]
    replacements, refusals = _replacements(rows, loaded, read, entries or {})
    if refusals:
        raise Refused(refusals)
    calls, notes = _calls(layout, register_frame)
    return PatchPlan(
        number=number,
        image=str(image),
        allocations=tuple(allocations),
        segments=tuple(segments),
        replacements=replacements,
        calls=calls,
        # A thread at the first byte runs the jump as a whole; one further in would run half of it.
        forbidden=tuple((row.address + 1, row.address + len(row.replacement)) for row in replacements),
        functions=tuple(functions),
        notes=notes,
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    file: str
    entry: int
    size: int
    target: int


def _size(row: Replaced, loaded: LoadedImage) -> int:
    # A function without an old block (it is an alias, say): the image knows its size.
    if row.old_size:
        return row.old_size
    symbols = loaded.symbols
    same = slice(*np.searchsorted(symbols.address, [row.entry, row.entry + 1]).tolist())
    return int(symbols.size[same].max(initial=0))


def _replacements(
    rows: Sequence[_Entry], loaded: LoadedImage, read: MemoryReader, entries: Mapping[int, bytes]
) -> tuple[tuple[Replacement, ...], list[Refusal]]:
    places = [_rewritten_place(row, entries) for row in rows]
    whole = [(row.entry, row.size + _padding_after(row, loaded)) for row in rows]
    # One round trip: an earlier jump where there is one, else the old code with its padding.
    ranges = [(place, len(entries[place])) if place else code for place, code in zip(places, whole, strict=True)]
    replacements: list[Replacement] = []
    refusals: list[Refusal] = []
    for row, place, content in zip(rows, places, read(ranges), strict=True):
        found, refused = _next_jump(row, place, content, entries) if place else _first_jump(row, content)
        refusals += refused
        if found is not None:
            replacements.append(found)
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
    return Replacement(place, expected, jump(place, row.target), row.name), ()


def _calls(layout: Layout, register_frame: tuple[int, int] | None) -> tuple[tuple[Call, ...], tuple[str, ...]]:
    calls = [
        Call(slot.resolver, (), f"choose the implementation of {slot.name}", result_at=slot.address)
        for slot in layout.slots
        if slot.value == UNBOUND
    ]
    if layout.unwind is None:
        return tuple(calls), ()
    if register_frame is None:
        return tuple(calls), ()  # no unwinder in the process, so nothing ever walks through the new code
    register, deregister = register_frame
    table = layout.unwind.address
    calls.append(Call(register, (table, layout.unwind_object), "register the unwind table"))
    calls.append(Call(deregister, (table,), "take the unwind table back", on_undo=True))
    return tuple(calls), ()


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
