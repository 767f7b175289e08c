"""What the edited units of a process differ in from the code that runs, and every reason against a patch of that.

It is asked of a process before it is patched, and of the images of a build, with no process at all, when a patch is
written to a file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ipbp.build.compile import Tell
from ipbp.build.store import Store
from ipbp.errors import Refusal
from ipbp.graph.image import MemoryReader
from ipbp.graph.unit import Unit
from ipbp.pipeline.c_types import told_once
from ipbp.pipeline.folded import folded_elsewhere
from ipbp.pipeline.initialisers import taken_apart, unit_initialisers, with_thread_locals
from ipbp.pipeline.judge import Judged
from ipbp.pipeline.moves import Followed
from ipbp.pipeline.record import Record
from ipbp.pipeline.signature import refuse_old_callers
from ipbp.pipeline.types_elsewhere import types_elsewhere
from ipbp.stages.initialisers import Initialisers, Run, registered
from ipbp.stages.select import Replaced
from ipbp.stages.shared_entry import one_jump_each
from ipbp.stages.type_changes import ALL

Beside = tuple[Unit, tuple[Run, ...]]
_OF_TYPES = ("layout-changed", "coroutine-changed")
"""Refusals that the user may know better (`--allow-layout`)."""


@dataclass(frozen=True, slots=True)
class Compared:
    """`judged`: all units, `changed`: those that bring something, and `replaced` what of each gets a jump.
    `initialisers`: by image and unit. `beside`: units that initialise variables of others. `relaid`: types of another
    layout, as the user allowed."""

    judged: list[Judged]
    changed: list[Judged]
    replaced: list[tuple[Replaced, ...]]
    initialisers: dict[tuple[str, str], Initialisers]
    beside: list[Beside]
    notes: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    relaid: tuple[str, ...]


def compared(
    followed: Mapping[str, Followed],
    record: Record,
    allow_layout: Collection[str],
    store: Store,
    read: MemoryReader,
    tell: Tell,
) -> Compared:
    """`followed`: the units of each image, by its key. Errors: those of `taken_apart`."""
    judged = [unit for row in followed.values() for unit in row.judged]
    beyond, judged, initialisers, beside = _beyond_one_object(judged, record, store, read, tell)
    changed = [unit for unit in judged if unit.is_changed]
    ran = [note for row in initialisers.values() for note in row.notes]
    said = [note for row in followed.values() for note in row.notes]
    # Types count where something is patched; of a crate always.
    resized = [row for unit in judged for row in unit.comparison.refusals]
    elsewhere = [
        types_elsewhere(row.judged, row.vacated, record.units(key), row.judged[0].edited.image, store, allow_layout)
        for key, row in followed.items()
        if row.judged and changed
    ]
    told_by = [unit.types for unit in judged if changed or unit.edited.is_crate]
    laid_out, types = told_once([*told_by, *elsewhere], resized)
    tables = [row for unit in judged for row in unit.selection.refusals if row.code in _OF_TYPES]
    told = {row.symbol for row in laid_out}.union(allow_layout)
    replaced, shared = _jumps(judged, changed)
    refusals = (
        *shared,
        *(refusal for row in followed.values() for refusal in row.refusals),
        *beyond,
        *laid_out,
        *(refusal for unit in judged for refusal in unit.comparison.refusals),
        *(row for row in tables if row.symbol not in told and ALL not in told),
        *(row for unit in judged for row in unit.selection.refusals if row not in tables),
    )
    notes = (*said, *types, *(note for unit in judged for note in unit.comparison.notes), *ran)
    agreed = [row.agreed for row in (*(unit.types for unit in judged), *elsewhere)]
    relaid = tuple(dict.fromkeys(name for names in agreed for name in names))
    return Compared(judged, changed, replaced, initialisers, beside, notes, refusals, relaid)


def _jumps(judged: Sequence[Judged], changed: Sequence[Judged]) -> tuple[list[tuple[Replaced, ...]], list[Refusal]]:
    """For each changed unit its functions that get a jump, one for each entry of its image."""
    replaced: list[tuple[Replaced, ...]] = [()] * len(changed)
    refusals: list[Refusal] = []
    for key in {unit.edited.image.key: None for unit in changed}:
        rows = [row for row, unit in enumerate(changed) if unit.edited.image.key == key]
        running = [unit.old for unit in judged if unit.edited.image.key == key]
        found, refused = one_jump_each([changed[row].selection for row in rows], running, changed[rows[0]].edited.image)
        refusals += [
            *refused,
            *folded_elsewhere(changed[rows[0]].edited.image, [jumps for group in found for jumps in group]),
        ]
        for row, jumps in zip(rows, found, strict=True):
            replaced[row] = jumps
    return replaced, refusals


def _beyond_one_object(
    judged: Sequence[Judged], record: Record, store: Store, read: MemoryReader, tell: Tell
) -> tuple[list[Refusal], list[Judged], dict[tuple[str, str], Initialisers], list[Beside]]:
    """What the rest of an image has to say to an edit: callers that were not compiled again, and functions that ran
    before main or are to run at exit; these by image and unit. The units are those whose new variables can be
    initialised by themselves; the last are units that do it for one of them."""
    refusals: list[Refusal] = []
    units: list[Judged] = []
    found: dict[tuple[str, str], Initialisers] = {}
    beside: list[Beside] = []
    for image in {unit.edited.image.key: unit.edited.image for unit in judged}.values():
        here = [unit for unit in judged if unit.edited.image.key == image.key]
        refusals += refuse_old_callers(here, record.units(image.key), store, image)
        known = registered(image, read)
        for unit in here:
            before = record.units(image.key).get(unit.edited.name)
            unit, refused = with_thread_locals(unit, before.beside if before is not None else ())
            refusals += refused
            apart = taken_apart(unit, unit_initialisers(unit, known), store, tell)
            units.append(apart.unit)
            found[image.key, unit.edited.name] = apart.found
            beside += apart.beside
            refusals += apart.found.refusals
    return refusals, units, found, beside
