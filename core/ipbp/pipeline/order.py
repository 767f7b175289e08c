"""The stages in their order: from what the plugin knows to a plan. Nothing here writes to the inferior.

Every stage takes the values of the stages before it and leaves them as they are. Refusals are collected until the
point where going on makes no sense, and raised together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ipbp.build.store import Store, user_store
from ipbp.errors import Refusal, Refused
from ipbp.formats.elf_object import read_object
from ipbp.formats.elf_patch import write_patch
from ipbp.formats.elf_process import LoadedProcess, read_process
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.layout import Layout, UnitLayout
from ipbp.graph.model import I64, Binding, BlockKind, LinkGraph, SymbolType
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.pipeline.edited import Edited, edited_units
from ipbp.pipeline.old_side import LIFTED, addresses_by_name, old_side
from ipbp.pipeline.record import Record, UnitRecord
from ipbp.pipeline.request import Request
from ipbp.protocol import FunctionChange, PatchPlan
from ipbp.stages.arena import Arena, choose_arena, room
from ipbp.stages.compare import Comparison, Status, compare
from ipbp.stages.correlate import correlate
from ipbp.stages.doubtful import doubtful_addresses
from ipbp.stages.layout import demand, layout
from ipbp.stages.plan import plan
from ipbp.stages.relocate import relocate
from ipbp.stages.resolve import resolve
from ipbp.stages.select import OldSide, Selection, select

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`plan` is None when nothing changed. `notes` and `times` (milliseconds) are then all there is to say."""

    plan: PatchPlan | None
    notes: tuple[str, ...] = ()
    times: dict[str, float] = field(default_factory=dict)


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


def make_plan(request: Request, read: MemoryReader, tell: Tell) -> Outcome:
    """The plan for one patch.

    Errors: `Refused` with every reason at once; `compile-failed` and others of `build`; `object-*`, `image-*`.
    """
    clock = Clock()
    store = user_store()
    process = read_process(request.description.pid, list(request.regions), request.description.executable, read)
    image = process.executable_image()
    clock.lap("index")

    # Which units were edited, and their new objects: the user's own compile, replayed while the program runs.
    edited = edited_units(request, image, store, tell)
    clock.lap("compile")

    # What of them differs from the code that runs.
    judged = _one_of_each([_judge(unit, request.record, store, image, read) for unit in edited.units])
    changed = [unit for unit in judged if unit.is_changed]
    notes = [*edited.notes, *(note for unit in judged for note in unit.comparison.notes)]
    _raise_all(edited.refusals, *(u.comparison.refusals for u in judged), *(u.selection.refusals for u in judged))
    clock.lap("diff")
    if not changed:
        return Outcome(None, tuple(notes), clock.times)

    # Every outside name gets its address in the process.
    defined = defined_names([unit.selection.unit for unit in judged], request.record, store)
    units, refusals = resolve([unit.selection.unit for unit in changed], image, process.lookup, defined)
    _raise_all(refusals)

    # Beyond this point no block may grow: memory is chosen and laid out.
    arena, is_new = _arena(request, image, demand(units))
    placed = layout(units, arena)
    _raise_all(placed.refusals)
    linked = relocate(units, placed)
    _raise_all(linked.refusals)

    # Beyond this point the bytes are final.
    path = request.folder / f"patch-{request.number}.elf"
    segments = write_patch(path, units, placed, linked)
    selections = [unit.selection for unit in changed]
    made = plan(
        number=request.number,
        image=path,
        units=units,
        replaced=[selection.replaced for selection in selections],
        layout=placed,
        segments=segments,
        entries=request.entries,
        allocations=arena.allocations() if is_new else (),
        loaded=image,
        read=read,
        register_frame=_unwinder(process, image),
    )
    clock.lap("link")
    return Outcome(
        replace(
            made,
            functions=tuple(
                row for unit, columns in zip(changed, placed.units, strict=True) for row in _rows(unit, columns)
            ),
            data=tuple(f"{name} (new)" for unit in changed for name in _new_variables(unit)),
            notes=(*notes, *made.notes),
            times=clock.times,
            record=_record(request.record, changed, placed).to_json(),
            arena=arena.taken(placed.ends()).to_json(),
        )
    )


class Clock:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.times: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.times[stage] = (now - self._last) * 1000
        self._last = now


def _one_of_each(judged: Sequence[Judged]) -> list[Judged]:
    """Of a source that was compiled in several ways (for a library and its static twin, say) the way that fits the
    process best: an object that memory proved, then the fewest differences. The first of equals, for they are alike.
    """
    best: dict[str, Judged] = {}
    for unit in judged:
        known = best.get(unit.edited.name)
        if known is None or unit.misfit < known.misfit:
            best[unit.edited.name] = unit
    return list(best.values())


def _judge(unit: Edited, record: Record, store: Store, image: LoadedImage, read: MemoryReader) -> Judged:
    old, source = old_side(unit.new, unit.old_object, record.units.get(unit.name), store, image, read)
    correlation = correlate(old.graph, unit.new)
    comparison = compare(old.graph, unit.new, correlation)
    selection = select(unit.name, unit.new, old, correlation, comparison)
    doubtful = doubtful_addresses(unit.new, selection.unit.carried)
    refusals = (*selection.refusals, *doubtful)
    return Judged(unit, old, source == LIFTED, comparison, replace(selection, refusals=refusals))


def defined_names(units: Sequence[Unit], record: Record, store: Store) -> dict[str, int]:
    """Load addresses of the global names that run in these units, and in those of earlier patches."""
    names: dict[str, int] = {}
    for name, row in record.units.items():
        if name not in [unit.name for unit in units]:
            graph = read_object(store.get(row.object).read_bytes(), name)
            names.update(_global_names(graph, addresses_by_name(graph, row.address)))
    for unit in units:
        names.update(_global_names(unit.graph, unit.address))
    return names


def _global_names(graph: LinkGraph, address: I64) -> dict[str, int]:
    symbols = graph.symbols
    rows = np.flatnonzero((symbols.block >= 0) & (symbols.binding != Binding.LOCAL) & (address != UNBOUND))
    plain = rows[np.isin(symbols.type[rows], (SymbolType.NONE, SymbolType.OBJECT, SymbolType.FUNCTION))]
    return {symbols.name[row]: int(address[row]) for row in plain.tolist()}


def _raise_all(*groups: Iterable[Refusal]) -> None:
    refusals = list(dict.fromkeys(refusal for group in groups for refusal in group))
    if refusals:
        raise Refused(refusals)


def _arena(request: Request, image: LoadedImage, needed: Mapping[str, int]) -> tuple[Arena, bool]:
    """The arena of the earlier patches while it has room, else a new one; whether it is new."""
    known = request.arena
    if known is not None and room(known, needed):
        return known, False
    # New code refers to the variables of earlier patches, too.
    start, end = (min(image.start, known.base), max(image.end, known.end)) if known else (image.start, image.end)
    arena = choose_arena(request.regions, start, end, low_2g=not image.is_pie, demand=needed)
    return arena, True


def _unwinder(process: LoadedProcess, image: LoadedImage) -> tuple[int, int] | None:
    """Addresses of __register_frame_info and __deregister_frame_info, where the process has an unwinder (libgcc)."""
    addresses = []
    for name in ("__register_frame_info", "__deregister_frame_info"):
        found = process.lookup(name)
        rows = image.symbols.by_name.get(name, ())
        if found is not None:
            addresses.append(found.address)
        elif len(rows) == 1:
            addresses.append(int(image.symbols.address[rows[0]]))
    return (addresses[0], addresses[1]) if len(addresses) == 2 else None


def _rows(unit: Judged, columns: UnitLayout) -> list[FunctionChange]:
    """The report: a row for each function that changed, is new or is gone."""
    graph, selection = unit.edited.new, unit.selection
    place = columns.block
    replaced = {row.block: row for row in selection.replaced}
    rows = []
    for block in [*replaced, *(b for b in selection.added if graph.blocks.kind[b] == BlockKind.CODE)]:
        old = replaced.get(block)
        rows.append(
            FunctionChange(
                name=graph.block_name(block),
                status="changed" if old else "new",
                reason=unit.comparison.reason.get(block, "new in the process"),
                file=unit.edited.name,
                entry=old.entry if old else int(place[block]),
                address=int(place[block]),
                size=int(graph.blocks.size[block]),
                old_size=old.old_size if old else 0,
            )
        )
    return rows + [
        FunctionChange(unit.old.graph.block_name(block), "removed", "no longer in the source", unit.edited.name)
        for block in unit.comparison.removed
        if unit.old.graph.blocks.kind[block] == BlockKind.CODE
    ]


def _new_variables(unit: Judged) -> list[str]:
    graph = unit.edited.new
    return [graph.block_name(b) for b in unit.selection.added if graph.blocks.kind[b] != BlockKind.CODE]


def _record(before: Record, changed: Sequence[Judged], placed: Layout) -> Record:
    """What the next patch needs to know: for each unit of this one, the load address of every name."""
    units = dict(before.units)
    for unit, columns in zip(changed, placed.units, strict=True):
        graph = unit.edited.new
        address = np.where(columns.meaning != UNBOUND, columns.meaning, unit.selection.unit.address)
        names = {
            name: int(value)
            for name, value, block in zip(graph.symbols.name, address, graph.symbols.block, strict=True)
            if name and value != UNBOUND and block != -1
        }
        retired = dict(unit.old.retired)
        for block in unit.comparison.removed:
            anchor = int(unit.old.graph.blocks.anchor[block])
            if unit.old.graph.blocks.kind[block] == BlockKind.CODE and unit.old.address[anchor] != UNBOUND:
                retired[unit.old.graph.symbols.name[anchor]] = int(unit.old.address[anchor])
        units[unit.edited.name] = UnitRecord(
            unit.edited.digest, names, unit.edited.dependencies, {k: v for k, v in retired.items() if k not in names}
        )
    return Record(units)
