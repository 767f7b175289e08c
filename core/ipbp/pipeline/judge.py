"""One edited unit against what runs now: what differs, and what of it would be carried over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ipbp.build.store import Store
from ipbp.graph.image import MemoryReader
from ipbp.pipeline.edited import Edited
from ipbp.pipeline.old_side import LIFTED, old_side
from ipbp.pipeline.record import Record
from ipbp.pipeline.same_names import told_apart
from ipbp.stages.compare import Comparison, Status, compare
from ipbp.stages.correlate import correlate
from ipbp.stages.doubtful import doubtful_addresses
from ipbp.stages.select import OldSide, Selection, select


@dataclass(frozen=True, slots=True)
class Judged:
    """One edited unit after the diff. `is_lifted`: its old side is the image itself, no object."""

    edited: Edited
    old: OldSide
    is_lifted: bool
    comparison: Comparison
    selection: Selection

    @property
    def is_changed(self) -> bool:
        return bool(len(self.selection.unit.carried))

    @property
    def misfit(self) -> tuple[bool, int]:
        """How badly this fits the process, beside another compile of the same source."""
        return self.is_lifted, int((self.comparison.status != Status.SAME).sum())


def judge(unit: Edited, record: Record, store: Store, read: MemoryReader) -> Judged:
    """The unit against the best old side that there is for it."""
    known = record.units(unit.image.key).get(unit.name)
    image = unit.image if known else told_apart(unit.image, Path(unit.name), unit.new.source)
    old, source = old_side(unit.new, unit.old_object, known, store, image, read)
    return judge_against(unit, old, source == LIFTED)


def judge_against(unit: Edited, old: OldSide, is_lifted: bool) -> Judged:
    """The unit against this old side."""
    correlation = correlate(old.graph, unit.new)
    comparison = compare(old.graph, unit.new, correlation)
    selection = select(unit.name, unit.new, old, correlation, comparison, unit.image.key)
    doubtful = doubtful_addresses(unit.new, selection.unit.carried)
    return Judged(unit, old, is_lifted, comparison, replace(selection, refusals=(*selection.refusals, *doubtful)))
