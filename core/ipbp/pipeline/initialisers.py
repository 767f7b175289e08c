"""New variables of C++ that get their values by code: what a plan has to run, and what catches what that throws."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ipbp.arch.x86_64_catcher import CATCHER, NEEDED, catcher
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import Scope
from ipbp.graph.layout import UnitLayout
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.pipeline.judge import Judged
from ipbp.pipeline.sources import sources_of
from ipbp.protocol import Initialiser
from ipbp.stages.initialisers import (
    Initialisers,
    Run,
    judge_initialisers,
    judge_thread_initialisers,
    new_blocks,
    not_initialised,
)
from ipbp.stages.separation import Inseparable, separated


def unit_initialisers(unit: Judged, known: Collection[int]) -> Initialisers:
    """`known`: `stages.initialisers.registered` of the unit's image."""
    graph, address = unit.edited.new, unit.selection.unit.address
    old = None if unit.is_lifted else unit.old.graph
    found = judge_initialisers(graph, unit.comparison.status, address, known, old, unit.edited.name)
    more = judge_thread_initialisers(graph, unit.comparison.status, address, unit.edited.name)
    return replace(found, refusals=(*found.refusals, *more))


def taken_apart(unit: Judged, found: Initialisers) -> tuple[Judged, Initialisers]:
    """The unit, whose new variables are initialised without those that exist, as `found` says. Refusals:
    `new-initialiser`."""
    if not found.mixed:
        return unit, found
    graph, selected = unit.edited.new, unit.selection.unit
    is_new = new_blocks(graph, unit.comparison.status, selected.address)
    blocks = [int(graph.symbols.block[run.symbol]) for run in found.mixed]
    try:
        graph = separated(selected.graph, blocks, selected.carried.tolist(), is_new, sources_of(unit.edited.new))
    except Inseparable as why:
        refused = [row for run in found.mixed for row in not_initialised(run, graph, unit.edited.name, str(why))]
        return unit, replace(found, refusals=(*found.refusals, *dict.fromkeys(refused)), mixed=())
    selection = replace(unit.selection, unit=replace(selected, graph=graph))
    return replace(unit, selection=selection), replace(found, runs=(*found.runs, *found.mixed), mixed=())


def catchers(units: Sequence[Unit], process: LoadedProcess) -> list[Unit]:
    """For each image of these units one more, with the function that catches; none where nothing can be thrown,
    because the process has no runtime for it."""
    keys = dict.fromkeys(unit.image for unit in units)
    return [_catcher(key) for key in keys if _can_catch(process.scope(key))]


def _catcher(image: str) -> Unit:
    graph = catcher()
    unbound = np.full(len(graph.symbols), UNBOUND, dtype=np.int64)
    return Unit(CATCHER, graph, np.arange(len(graph.blocks), dtype=np.int32), unbound, unbound.copy(), image=image)


def _can_catch(scope: Scope) -> bool:
    return all(scope.lookup(name) is not None or scope.image.symbols.by_name.get(name) for name in NEEDED)


def planned(
    units: Sequence[Unit], columns: Sequence[UnitLayout], runs: Mapping[tuple[str, str], Sequence[Run]]
) -> tuple[Initialiser, ...]:
    """What runs, in order. `columns`: where everything of each unit lies. `runs`: by image and unit."""
    places = {unit.image: column for unit, column in zip(units, columns, strict=True) if unit.name == CATCHER}
    rows: list[tuple[int, Initialiser]] = []
    for unit, column in zip(units, columns, strict=True):
        for run in runs.get((unit.image, unit.name), ()):
            copy = int(column.copy[run.symbol])
            address = copy if copy != UNBOUND else int(unit.address[run.symbol])
            row = Initialiser(address, run.variables, unit.name)
            place = places.get(unit.image)
            if place is not None:
                row = replace(row, catcher=int(place.block[0]), report=int(place.block[2]))
            rows.append((run.priority, row))
    return tuple(row for _, row in sorted(rows, key=lambda pair: pair[0]))
