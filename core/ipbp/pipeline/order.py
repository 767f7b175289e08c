"""The stages in their order: from what the plugin knows to a plan. Nothing here writes to the inferior.

Every stage takes the values of the stages before it and leaves them as they are. Refusals are collected until the
point where going on makes no sense, and raised together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ipbp.build.store import Store, user_store
from ipbp.errors import Refusal, raise_all
from ipbp.formats.elf_object import read_object
from ipbp.formats.elf_patch import write_patch
from ipbp.formats.elf_process import LoadedProcess, read_process
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.layout import Layout, UnitLayout
from ipbp.graph.model import I64, Binding, BlockKind, LinkGraph, SymbolType
from ipbp.graph.threads import ThreadBlock
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.pipeline.edited import EditedUnits, edited_units
from ipbp.pipeline.judge import Judged, judge
from ipbp.pipeline.moves import Followed, Scene, follow_definitions
from ipbp.pipeline.old_side import addresses_by_name
from ipbp.pipeline.record import Record, UnitRecord
from ipbp.pipeline.request import Request
from ipbp.protocol import FunctionChange, PatchPlan
from ipbp.stages.arena import Arena, choose_arena, room
from ipbp.stages.layout import demand, layout
from ipbp.stages.plan import plan
from ipbp.stages.relocate import relocate
from ipbp.stages.resolve import resolve
from ipbp.stages.shared_entry import one_jump_each
from ipbp.stages.thread_locals import Threads, bind_thread_locals, executable_block

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`plan` is None when nothing changed. `notes` and `times` (milliseconds) are then all there is to say."""

    plan: PatchPlan | None
    notes: tuple[str, ...] = ()
    times: dict[str, float] = field(default_factory=dict)


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
    judged = _one_of_each([judge(unit, request.record, store, image, read) for unit in edited.units])

    # Where functions and variables went that are in other files now.
    def undefined(units: Iterable[Judged]) -> frozenset[str]:
        defined = defined_names([unit.selection.unit for unit in units], request.record, store)
        chosen = [unit.selection.unit for unit in units if unit.is_changed]
        refusals = _bound(chosen, process, image, defined)[1]
        return frozenset(row.symbol or "" for row in refusals if row.code == "undefined-symbol")

    scene = Scene(request.record, store, image, read, os.stat(image.file).st_mtime_ns, tell, request.colour)
    followed = follow_definitions(judged, edited, scene, undefined)
    judged = list(followed.judged)
    changed = [unit for unit in judged if unit.is_changed]
    notes = [*edited.notes, *followed.notes, *(note for unit in judged for note in unit.comparison.notes)]
    replaced, shared = one_jump_each([unit.selection for unit in changed], [unit.old for unit in judged], image)
    raise_all(
        edited.refusals,
        followed.refusals,
        shared,
        *(u.comparison.refusals for u in judged),
        *(u.selection.refusals for u in judged),
    )
    clock.lap("diff")
    if not changed:
        return Outcome(None, (*notes, *_in_vain(judged, edited)), clock.times)

    # Every thread-local variable gets its place in the threads, every other outside name its address.
    defined = defined_names([unit.selection.unit for unit in judged], request.record, store)
    units, refusals = _bound([unit.selection.unit for unit in changed], process, image, defined)
    raise_all(refusals)

    # Beyond this point no block may grow: memory is chosen and laid out.
    arena, is_new = _arena(request, image, demand(units))
    placed = layout(units, arena)
    raise_all(placed.refusals)
    linked = relocate(units, placed)
    raise_all(linked.refusals)

    # Beyond this point the bytes are final.
    path = request.folder / f"patch-{request.number}.elf"
    segments = write_patch(path, units, placed, linked)
    made = plan(
        number=request.number,
        image=path,
        units=units,
        replaced=replaced,
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
                row
                for unit, columns in zip(changed, placed.units, strict=True)
                for row in _rows(unit, columns, followed)
            ),
            data=tuple(f"{name} (new)" for unit in changed for name in _new_variables(unit)),
            notes=(*notes, *made.notes),
            times=clock.times,
            record=_record(request.record, changed, placed, followed).to_json(),
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


def defined_names(units: Sequence[Unit], record: Record, store: Store) -> dict[str, int]:
    """Load addresses of the global names that run in these units, and in those of earlier patches."""
    names: dict[str, int] = {}
    for name, row in record.units.items():
        if row.object and name not in [unit.name for unit in units]:
            graph = read_object(store.get(row.object).read_bytes(), name)
            names.update(_global_names(graph, addresses_by_name(graph, row.address)))
    for unit in units:
        names.update(_global_names(unit.graph, unit.address))
    return names


def _global_names(graph: LinkGraph, address: I64) -> dict[str, int]:
    symbols = graph.symbols
    rows = np.flatnonzero((symbols.block >= 0) & (symbols.binding != Binding.LOCAL) & (address != UNBOUND))
    plain = rows[np.isin(symbols.type[rows], (SymbolType.NONE, SymbolType.OBJECT, SymbolType.FUNCTION, SymbolType.TLS))]
    return {symbols.name[row]: int(address[row]) for row in plain.tolist()}


def _in_vain(judged: Sequence[Judged], edited: EditedUnits) -> list[str]:
    """Why an edit may seem to do nothing."""
    notes = [f"{unit.edited.name} was compiled, and the edit changes no machine code" for unit in judged[:3]]
    vanished = edited.commands.vanished if edited.commands else ()
    return notes + [f"{unit.source}, which the program was built from, is not there any more" for unit in vanished[:3]]


def _arena(request: Request, image: LoadedImage, needed: Mapping[str, int]) -> tuple[Arena, bool]:
    """The arena of the earlier patches while it has room, else a new one; whether it is new."""
    known = request.arena
    if known is not None and room(known, needed):
        return known, False
    # New code refers to the variables of earlier patches, too.
    start, end = image.near_start, image.near_end
    if known:
        start, end = min(start, known.base), max(end, known.end)
    arena = choose_arena(request.regions, start, end, low_2g=not image.is_pie, demand=needed)
    return arena, True


def _bound(
    units: Sequence[Unit], process: LoadedProcess, image: LoadedImage, defined: Mapping[str, int]
) -> tuple[list[Unit], tuple[Refusal, ...]]:
    """The units with all outside names bound; the calls that ask for thread-local variables are gone."""

    def block_of(path: str) -> ThreadBlock | None:
        return executable_block(image) if path == image.path else None

    threads = Threads(image, executable_block(image), process.lookup, block_of)
    bound, refusals = bind_thread_locals(units, threads, defined)
    resolved, undefined = resolve(bound, image, process.lookup, defined)
    return resolved, (*refusals, *undefined)


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


def _rows(unit: Judged, columns: UnitLayout, followed: Followed) -> list[FunctionChange]:
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
        FunctionChange(
            name=name,
            status="removed",
            reason="no longer in the source",
            file=unit.edited.name,
            entry=address,
            old_size=int(unit.old.graph.blocks.size[block]),
        )
        for name, address, block in _removed(unit, followed)
        if unit.old.graph.blocks.kind[block] == BlockKind.CODE
    ]


def _removed(unit: Judged, followed: Followed) -> Iterator[tuple[str, int, int]]:
    """Name, load address and old block of what this unit had and no unit has any more."""
    graph, address = unit.old.graph, unit.old.address
    for block in unit.comparison.removed:
        anchor = int(graph.blocks.anchor[block])
        if graph.symbols.name[anchor] not in followed.moved and address[anchor] != UNBOUND:
            yield graph.symbols.name[anchor], int(address[anchor]), block


def _new_variables(unit: Judged) -> list[str]:
    graph = unit.edited.new
    return [graph.block_name(b) for b in unit.selection.added if graph.blocks.kind[b] != BlockKind.CODE]


def _record(before: Record, changed: Sequence[Judged], placed: Layout, followed: Followed) -> Record:
    """What the next patch needs to know: for each unit of this one, the load address of every name. Where definitions
    moved, units that did not change otherwise are among them: they have fewer names now, or more."""
    units = {**before.units, **{name: UnitRecord("", {}) for name in followed.vacated}}
    meaning = {unit.edited.name: columns.meaning for unit, columns in zip(changed, placed.units, strict=True)}
    for unit in followed.judged if followed.moved else changed:
        graph, address = unit.edited.new, unit.selection.unit.address
        if unit.edited.name in meaning:
            address = np.where(meaning[unit.edited.name] != UNBOUND, meaning[unit.edited.name], address)
        names = {
            name: int(value)
            for name, value, block in zip(graph.symbols.name, address, graph.symbols.block, strict=True)
            if name and value != UNBOUND and block != -1
        }
        retired = dict(unit.old.retired)
        for name, place, block in _removed(unit, followed):
            anchor = int(unit.old.graph.blocks.anchor[block])
            is_shared = unit.old.graph.symbols.binding[anchor] != Binding.LOCAL
            if unit.old.graph.blocks.kind[block] == BlockKind.CODE or is_shared:
                retired[name] = place, int(unit.old.graph.blocks.size[block])
        units[unit.edited.name] = UnitRecord(
            unit.edited.digest, names, unit.edited.dependencies, {k: v for k, v in retired.items() if k not in names}
        )
    return Record(units)
