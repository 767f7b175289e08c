"""New variables of C++ that get their values by code: what a plan has to run, and what catches what that throws."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipbp.arch.catcher import CATCHER, NEEDED, catcher_of
from ipbp.arch.machines import machine_of
from ipbp.build.compile import Tell, compile_units
from ipbp.build.store import Store
from ipbp.errors import IpbpError, Refusal
from ipbp.formats.elf_archive import read_unit
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import Scope
from ipbp.graph.layout import UnitLayout
from ipbp.graph.model import LinkGraph
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.pipeline.judge import Judged
from ipbp.pipeline.sources import sources_of
from ipbp.protocol import Initialiser
from ipbp.stages.branches import with_local_branches
from ipbp.stages.initialisers import (
    Initialisers,
    Run,
    judge_initialisers,
    judge_thread_initialisers,
    made_in_turn,
    new_blocks,
    not_initialised,
    not_run,
    with_initialisers,
)
from ipbp.stages.second_object import SUFFIX, second_object
from ipbp.stages.separation import Inseparable, separated
from ipbp.stages.thread_initialisers import MAKER, maker_of, needs_maker, with_maker

UNOPTIMISED = ("-O0", "-g", "-w")
"""A macro that asks for optimisation (_FORTIFY_SOURCE) has the headers warn, which some projects take for an error."""


def unit_initialisers(unit: Judged, known: Collection[int]) -> Initialisers:
    """`known`: `stages.initialisers.registered` of the unit's image."""
    graph, address = unit.edited.new, unit.selection.unit.address
    old = None if unit.is_lifted else unit.old.graph
    return judge_initialisers(graph, unit.comparison.status, address, known, old, unit.edited.name)


def with_thread_locals(unit: Judged, beside: Collection[str]) -> tuple[Judged, list[Refusal]]:
    """The unit, which makes its new thread-local variables beside those that exist. `beside`: its names that have a new
    function since an earlier patch while the old one goes on. Refusals: `new-initialiser`."""
    graph, selected = unit.edited.new, unit.selection.unit
    is_new = new_blocks(graph, unit.comparison.status, selected.address)
    refused = judge_thread_initialisers(graph, unit.comparison.status, selected.address, unit.edited.name)
    maker, carried = maker_of(graph), selected.carried.tolist()
    if not needs_maker(graph, is_new, carried) or not machine_of(graph.machine).follows_flow:
        parts = with_initialisers(graph, maker) if maker >= 0 else []
        if MAKER in beside and any(part in carried for part in parts):
            refused.append(made_in_turn(graph.block_name(maker), unit.edited.name))
        return unit, refused
    try:
        (old,) = unit.old.graph.symbols.name.rows_of([MAKER]).tolist()
        place = int(unit.old.address[old]) if old >= 0 else UNBOUND
        changed, own = with_maker(selected, place, is_new, sources_of(graph))
    except Inseparable:
        return unit, refused
    fresh = (set(changed.carried.tolist()) - set(carried)).union(own) & set(changed.carried.tolist())
    selection = replace(
        unit.selection,
        unit=changed,
        replaced=tuple(row for row in unit.selection.replaced if row.block not in own),
        added=tuple(sorted({*unit.selection.added, *fresh})),
    )
    return replace(unit, selection=selection), []


@dataclass(frozen=True, slots=True)
class Apart:
    """A unit whose new variables are initialised without those that exist. `beside`: units that do it for this one,
    with what runs in them."""

    unit: Judged
    found: Initialisers
    beside: tuple[tuple[Unit, tuple[Run, ...]], ...] = ()


def taken_apart(unit: Judged, found: Initialisers, store: Store, tell: Tell) -> Apart:
    """The unit that does what `found` says. Refusals, in `found`: `new-initialiser`. Errors: `sources-changing`, those
    of `compile_units`."""
    if unit.edited.new.format != "elf":
        refused = [row for run in (*found.runs, *found.mixed) for row in not_run(run, unit.edited.name, "Windows")]
        return Apart(unit, replace(found, refusals=(*found.refusals, *refused), runs=(), mixed=()))
    if not found.mixed:
        return Apart(unit, found)
    graph, selected = unit.edited.new, unit.selection.unit
    is_new = new_blocks(graph, unit.comparison.status, selected.address)
    blocks = [int(graph.symbols.block[run.symbol]) for run in found.mixed]
    sources = sources_of(graph)
    try:
        try:
            apart = separated(selected.graph, blocks, selected.carried.tolist(), is_new, sources)
            done = replace(found, runs=(*found.runs, *found.mixed), mixed=())
            return Apart(_with_unit(unit, replace(selected, graph=apart)), done)
        except Inseparable:
            second = _without_optimisation(unit, bool(sources.place), store, tell)
            if second is None:
                raise
        made = second_object(
            selected, is_new, sources.plain, found.mixed, second, unit.edited.image, sources_of(second)
        )
    except Inseparable as why:
        refused = [row for run in found.mixed for row in not_initialised(run, graph, unit.edited.name, str(why))]
        return Apart(unit, replace(found, refusals=(*found.refusals, *dict.fromkeys(refused)), mixed=()))
    note = f"{unit.edited.name} was compiled without optimisation, too, for what gives its new variables their values"
    done = replace(found, notes=(*found.notes, note), mixed=())
    return Apart(_with_unit(unit, made.first), done, ((made.second, made.runs),))


def _with_unit(unit: Judged, selected: Unit) -> Judged:
    return replace(unit, selection=replace(unit.selection, unit=selected))


def _without_optimisation(unit: Judged, is_described: bool, store: Store, tell: Tell) -> LinkGraph | None:
    """The object of the unit, compiled for this only. None where nothing says how it is compiled, or it would be no
    other. `is_described`: it has debug information. Errors: `Inseparable`, `sources-changing`."""
    if unit.edited.dirty is None or (is_described and not unit.edited.is_optimised):
        return None
    try:
        (compiled,) = compile_units([unit.edited.dirty], store, tell, flags=UNOPTIMISED)
    except IpbpError as error:
        if error.code != "compile-failed":
            raise
        raise Inseparable("without optimisation it does not compile") from error
    # Some headers are left out by macros that ask whether the compiler optimises.
    if any(unit.edited.dependencies.get(path, digest) != digest for path, digest in compiled.dependencies.items()):
        raise IpbpError("sources-changing", f"{unit.edited.name} changed while it was compiled", "Try again.")
    return with_local_branches(read_unit(compiled.object.read_bytes(), compiled.source))


def catchers(units: Sequence[Unit], process: LoadedProcess) -> list[Unit]:
    """For each image of these units one more, with the function that catches; none where nothing can be thrown,
    because the process has no runtime for it."""
    machines = {unit.image: unit.graph.machine for unit in units}
    return [_catcher(key, machine) for key, machine in machines.items() if _can_catch(process.scope(key))]


def _catcher(image: str, machine: str) -> Unit:
    graph = catcher_of(machine_of(machine).catcher)
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
            row = Initialiser(address, run.variables, unit.name.removesuffix(SUFFIX))
            place = places.get(unit.image)
            if place is not None:
                row = replace(row, catcher=int(place.block[0]), report=int(place.block[2]))
            rows.append((run.priority, row))
    return tuple(row for _, row in sorted(rows, key=lambda pair: pair[0]))
