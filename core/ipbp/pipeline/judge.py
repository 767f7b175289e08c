"""One edited unit against what runs now: what differs, and what of it would be carried over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ipbp.build.store import Store
from ipbp.errors import Refusal
from ipbp.graph.image import MemoryReader
from ipbp.graph.model import BlockKind
from ipbp.pipeline.ahead import Ahead
from ipbp.pipeline.c_types import without_padding
from ipbp.pipeline.edited import Edited, used_names, uses, whole
from ipbp.pipeline.old_side import LIFTED, lifted_side, old_side
from ipbp.pipeline.owned_statics import pair_by_function
from ipbp.pipeline.parts import PartPairs, pair_parts, unknown_parts
from ipbp.pipeline.record import Record
from ipbp.pipeline.same_names import told_apart
from ipbp.pipeline.sources import statics_declared
from ipbp.pipeline.taken import with_taken
from ipbp.pipeline.types import judge_types
from ipbp.stages.allocators import new_allocators
from ipbp.stages.compare import Comparison, Status
from ipbp.stages.copies import Copies
from ipbp.stages.doubtful import doubtful_addresses
from ipbp.stages.moved import empty_side
from ipbp.stages.moved_lines import with_moved_lines
from ipbp.stages.name_numbers import base_name
from ipbp.stages.select import OldSide, Selection, select
from ipbp.stages.type_changes import NO_CHANGES, TypeChanges


@dataclass(frozen=True, slots=True)
class Judged:
    """One edited unit after the diff. `is_lifted`: its old side is the image itself, no object. `types`: what changed
    in the types that it describes."""

    edited: Edited
    old: OldSide
    is_lifted: bool
    types: TypeChanges
    copies: Copies
    comparison: Comparison
    selection: Selection

    @property
    def is_changed(self) -> bool:
        """Whether anything of it is other code now, though another unit of the patch may bring it."""
        return bool(len(self.selection.unit.carried) or self.selection.elsewhere or self.selection.unit.slots)

    @property
    def misfit(self) -> tuple[bool, int]:
        """How badly this fits the process, beside another compile of the same source."""
        return self.is_lifted, int((self.comparison.status != Status.SAME).sum())


def judge(
    units: Iterable[Edited],
    record: Record,
    store: Store,
    read: MemoryReader,
    ahead: Ahead,
    allow_layout: Collection[str] = (),
    exact: bool = False,
    alike: Iterable[Callable[[], Edited]] = (),
) -> list[Judged]:
    """Each unit against the best old side that there is for it. `allow_layout`: types whose layout may change.
    `exact`: lines that moved change functions, too. `alike`: crates whose objects are as they run."""
    sides = [_sides(unit, record, store, read, allow_layout, ahead) for unit in units]
    if any(row.unit.members is not None and row.says_something for row in sides):
        # What makes one function another one makes others so, which may be in objects that are alike in old and new.
        sides = [
            _sides(whole(row.unit, store), record, store, read, allow_layout, ahead) if row.unit.is_crate else row
            for row in sides
        ]
    # What is another function now is that for the crates that call it, too.
    renewed = frozenset[str]().union(*(row.types.renewed for row in sides))
    if renewed:
        callers = [unit for make in alike if uses(unit := make(), renewed)]
        sides += [_sides(unit, record, store, read, allow_layout, ahead) for unit in callers]
        wanted = used_names([row.unit.new for row in sides if row.unit.is_crate])
        sides = [replace(row, unit=replace(row.unit, wanted=wanted)) if row.unit.is_crate else row for row in sides]
    return [
        judge_against(
            row.unit,
            row.old,
            row.is_lifted,
            ahead,
            replace(row.types, renewed=renewed) if row.unit.is_crate else row.types,
            exact,
        )
        for row in sides
    ]


@dataclass(frozen=True, slots=True)
class _Sides:
    unit: Edited
    old: OldSide
    is_lifted: bool
    types: TypeChanges

    @property
    def says_something(self) -> bool:
        """Whether the types make a difference to what is the same."""
        types = self.types
        return bool(types.renewed or types.refusals or types.notes or types.successors)


def _sides(
    unit: Edited, record: Record, store: Store, read: MemoryReader, allow_layout: Collection[str], ahead: Ahead
) -> _Sides:
    known = record.units(unit.image.key).get(unit.name)
    if unit.is_newcomer and known is None:
        return _Sides(unit, empty_side(unit.new), False, NO_CHANGES)
    image = unit.image if known else told_apart(unit.image, Path(unit.name), unit.new.source)
    old, source = old_side(unit.new, unit.old_object, known, store, image, read, ahead, unit.members)
    if source == LIFTED and unit.members is not None:
        # Not the build that runs, so that nothing is known of the objects that are alike in both either.
        unit = whole(unit, store)
        old = lifted_side(unit.new, image, read)
    if unit.is_crate:
        old = with_taken(old, record.units(unit.image.key))
    lifted = image if source == LIFTED else None
    types = judge_types(unit, old.graph, lifted, read, allow_layout)
    return _Sides(unit, old, source == LIFTED, types)


def judge_against(
    unit: Edited, old: OldSide, is_lifted: bool, ahead: Ahead, types: TypeChanges = NO_CHANGES, exact: bool = False
) -> Judged:
    """The unit against this old side."""
    # The sources of an object that was not compiled just now may be other ones, or not there.
    declared = partial(statics_declared, unit.dependencies if unit.dirty is not None else ())
    known = PartPairs({}) if unit.is_crate else pair_parts(old.graph, unit.new, unit.name, declared)
    owned = pair_by_function(old, unit.new, types.sides, unit.image if is_lifted else None)
    copies = ahead.pair(old.graph, unit.new, types.renewed, types.successors, {**owned, **known.symbol}, declared)
    unknown = unknown_parts(known, unit.new, copies.comparison, unit.name)
    if unit.new.format == "coff":
        sized = without_padding(copies.comparison.refusals, types)
        copies = replace(copies, comparison=replace(copies.comparison, refusals=sized))
    types = replace(types, refusals=(*types.refusals, *known.refusals, *unknown))
    if unit.is_crate:
        copies = replace(copies, comparison=with_moved_lines(old.graph, unit.new, copies.comparison, exact))
    selection = _selected(unit, old, types, copies)
    return Judged(unit, old, is_lifted, types, copies, copies.comparison, selection)


def judge_without(unit: Judged, elsewhere: frozenset[str]) -> Judged:
    """The unit, of which another one brings what is named."""
    return replace(unit, selection=_selected(unit.edited, unit.old, unit.types, unit.copies, elsewhere))


def _selected(
    unit: Edited, old: OldSide, types: TypeChanges, copies: Copies, elsewhere: frozenset[str] = frozenset()
) -> Selection:
    selection = select(unit.name, unit.new, old, copies, unit.image.key, elsewhere, unit.wanted)
    doubtful = doubtful_addresses(unit.new, selection.unit.carried)
    unlocated = _unlocated(unit, copies.comparison, selection)
    doubts = types.doubts(_changed(unit, copies.comparison))
    allocators = new_allocators(unit.new, selection.added, unit.name)
    refusals = (*doubts, *copies.refusals, *selection.refusals, *doubtful, *unlocated, *allocators)
    return replace(selection, refusals=refusals)


def _changed(unit: Edited, comparison: Comparison) -> frozenset[str]:
    """Names of the functions that are not what they were."""
    blocks = np.flatnonzero((comparison.status != Status.SAME) & (unit.new.blocks.kind == BlockKind.CODE))
    return frozenset(base_name(unit.new.block_name(block)) for block in blocks.tolist())


def _unlocated(unit: Edited, comparison: Comparison, selection: Selection) -> Iterator[Refusal]:
    """Functions that ran before at a place that a stripped image does not tell. Where the image has names of static
    functions, a function without one is not in it."""
    if unit.image.symbols.files:
        return
    for block in selection.added:
        name = unit.new.block_name(block)
        if unit.new.blocks.kind[block] == BlockKind.CODE and comparison.old_block[block] >= 0:
            yield Refusal(
                "function-unlocated",
                f"the place of '{name}' in the running program was not found: {unit.image.path} has no symbol table",
                "Do not strip the program, or install its debug file.",
                name,
                unit.name,
            )
