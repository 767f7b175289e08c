"""The stages in their order: from what the plugin knows to a plan. Nothing here writes to the inferior.

Every stage takes the values of the stages before it and leaves them as they are. Refusals are collected until the
point where going on makes no sense, and raised together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

from ipbp.arch.entry import LANDING_SIZE
from ipbp.build.begun_early import begun_early
from ipbp.build.compilers_time import taken_milliseconds
from ipbp.build.crates import Ending
from ipbp.build.store import Store, user_store
from ipbp.errors import Refused, raise_all
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import MemoryReader
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.agreed import one_of_each_copy
from ipbp.pipeline.between_images import moved_between
from ipbp.pipeline.bound import bound, defined_names
from ipbp.pipeline.compared import compared
from ipbp.pipeline.edited import Built, EditedUnits, compiled_again, edited_units
from ipbp.pipeline.frames import OFFER, frame_move, frame_offers
from ipbp.pipeline.hooks import with_hooks
from ipbp.pipeline.initialisers import catchers, planned
from ipbp.pipeline.judge import Judged, judge
from ipbp.pipeline.libraries import loading_plan, offered
from ipbp.pipeline.linking import LinkedUnits, link_units
from ipbp.pipeline.loader import quiet_for
from ipbp.pipeline.moves import Followed, Scene, follow_crates, follow_definitions
from ipbp.pipeline.patch_units import not_as_built, units_of_file
from ipbp.pipeline.process import process_of
from ipbp.pipeline.readable import readable, readable_errors, readable_plan
from ipbp.pipeline.record import Record
from ipbp.pipeline.report import function_rows, new_variables, record_after
from ipbp.pipeline.request import Request
from ipbp.pipeline.signature import changed_callees
from ipbp.pipeline.supplied import with_archives
from ipbp.pipeline.texts import edited_texts
from ipbp.protocol import FrameMove, PatchPlan
from ipbp.stages.alignment import MISALIGNED, ONE_AT_A_TIME, misaligned
from ipbp.stages.far_data import OUT_OF_REACH, through_pointers
from ipbp.stages.old_callers import old_callers
from ipbp.stages.plan import plan
from ipbp.stages.thread_locals import ASKED_FOR, NOT_REACHED

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`plan` is None when nothing changed. `notes` and `times` (milliseconds) are then all there is to say.
    `is_first`: the plan loads libraries, and the patch is to be asked for once more when that is done. `frame`: how the
    selected frame goes on, where that was asked for; `offers`: how it could."""

    plan: PatchPlan | None
    notes: tuple[str, ...] = ()
    times: dict[str, float] = field(default_factory=dict)
    is_first: bool = False
    frame: FrameMove | None = None
    offers: tuple[str, ...] = ()


def make_plan(request: Request, read: MemoryReader, tell: Tell) -> Outcome:
    """The plan for one patch, in names that a programmer recognises.

    Errors: `Refused` with every reason at once; `compile-failed` and others of `build`; `object-*`, `image-*`.
    """
    with readable_errors():
        made = _make_plan(request, read, tell)
    plan = readable_plan(made.plan) if made.plan is not None else None
    return replace(made, plan=plan, notes=tuple(map(readable, made.notes)))


def _make_plan(request: Request, read: MemoryReader, tell: Tell) -> Outcome:
    clock = Clock()
    described = request.description
    is_build = request.objects is None and request.patch_file is None
    with begun_early((described.pid, described.executable)) if is_build else nullcontext():
        return _with_process(request, read, tell, clock)


def _with_process(request: Request, read: MemoryReader, tell: Tell, clock: Clock) -> Outcome:
    store = user_store()
    tell("reading the program's symbols")
    process = process_of(request, read)
    clock.lap("index")

    # Libraries that the user agreed to come first: what is linked afterwards finds them.
    loading = loading_plan(request, process) if request.load else None
    if loading is not None:
        return Outcome(replace(loading, times=clock.times), is_first=True)

    # A compiler that has made its objects may still be at work: the plan counts when it has ended well.
    endings: list[Ending] = []
    try:
        outcome = _compiled(request, process, store, tell, clock, endings)
    except BaseException:
        for ended in endings:  # what a compiler says comes before what is said of its objects
            ended()
        raise
    said = [messages.rstrip() for ended in endings if (messages := ended()).strip()]
    clock.lap("compile")
    made = replace(outcome.plan, notes=(*said, *outcome.plan.notes)) if outcome.plan is not None else None
    return replace(outcome, plan=made, notes=(*said, *outcome.notes))


def _compiled(
    request: Request, process: LoadedProcess, store: Store, tell: Tell, clock: Clock, endings: list[Ending]
) -> Outcome:
    """From edits to a plan. `endings` are to be called before it counts."""
    # Which units of which images were edited, and their new objects: the user's own compile, replayed while the
    # program runs.
    edited = _edited(request, process, store, tell, endings)
    clock.lap("compile")
    ways = frozenset[str]()
    while True:
        try:
            return _linked(edited, request, process, store, tell, clock)
        except Refused as refused:
            # Some of what cannot be placed the compiler can write in another way.
            wanted = _other_ways(refused)
            again = None
            if not wanted <= ways:
                ways |= wanted
                files = {row.file for row in refused.refusals if row.file}
                again = compiled_again(edited, files, _flags_for(ways), store, tell)
            if again is None:
                raise
            edited = again
            clock.lap("compile")


def _edited(request: Request, process: LoadedProcess, store: Store, tell: Tell, endings: list[Ending]) -> EditedUnits:
    if request.patch_file is not None:
        return units_of_file(request.patch_file, request, process, store)
    return edited_units(request, process, store, tell, endings.append)


_OTHER_WAYS: dict[str, Callable[[LinkGraph], tuple[str, ...]]] = {
    MISALIGNED: lambda _: ONE_AT_A_TIME,
    NOT_REACHED: lambda _: ASKED_FOR,
    OUT_OF_REACH: through_pointers,
}


def _other_ways(refused: Refused) -> frozenset[str]:
    """The reasons, when flags may take all of these away; none when one of them stays in any case."""
    codes = frozenset(row.code for row in refused.refusals)
    return codes if codes <= _OTHER_WAYS.keys() else frozenset()


def _flags_for(ways: Iterable[str]) -> Callable[[LinkGraph], tuple[str, ...]]:
    """Flags for the compiler that made an object."""
    return lambda graph: tuple(flag for code in sorted(ways) for flag in _OTHER_WAYS[code](graph))


def _linked(
    edited: EditedUnits, request: Request, process: LoadedProcess, store: Store, tell: Tell, clock: Clock
) -> Outcome:
    """From new objects to a plan."""
    read = process.read
    tell("comparing with what runs")
    # What of them differs from the code that runs, and where definitions went that are in other files now.
    allowed, exact = request.allow_layout, request.exact
    judged = _one_of_each(judge(edited.units, request.record, store, read, edited.ahead, allowed, exact, edited.alike))
    followed = _followed(judged, edited, request, process, store, tell)
    found = compared(followed, request.record, request.allow_layout, store, read, tell)
    judged, changed, initialisers, beside = found.judged, found.changed, found.initialisers, found.beside
    notes = [*edited.notes, *found.notes]
    not_built = not_as_built(judged) if request.patch_file else ()
    raise_all(edited.refusals, not_built, found.refusals, moved_between(judged, followed, request.record, process))
    clock.lap("diff")
    if not changed:
        wanted = request.frame if request.frame and request.frame.mode != OFFER else None
        again = frame_move(wanted, process, None, ()) if wanted else None
        return Outcome(None, (*notes, *_in_vain(judged, edited)), clock.times, frame=again)

    # Every thread-local variable gets its place in the threads, every other outside name its address, as they are seen
    # from the unit's image; what the linker left out of it comes out of its archives.
    images = {unit.edited.image.key: unit.edited.image for unit in changed}
    defined = defined_names([unit.selection.unit for unit in judged], request.record, store)
    selected = [unit.selection.unit for unit in changed]
    runs = {key: row.runs for key, row in initialisers.items() if row.runs}
    runs.update({(unit.image, unit.name): rows for unit, rows in beside})
    helpers = [unit for unit, _ in beside]
    helpers += catchers([unit for unit in (*selected, *helpers) if (unit.image, unit.name) in runs], process)
    selected += helpers
    supplied = with_archives(
        selected, lambda units: bound(units, process, defined, request.record), edited.built, request.record
    )
    raise_all(offered(supplied.refusals, process, request.description.local_pid), misaligned(supplied.units))

    # Memory is chosen, laid out and filled.
    tell("linking")
    replaced = [*found.replaced, *[()] * (len(helpers) + supplied.added)]
    linked = link_units(supplied.units, replaced, process, request)
    made = plan(
        number=request.number,
        groups=linked.groups,
        images=list(images.values()),
        entries=request.entries,
        allocations=linked.allocations,
        read=read,
    )
    texts = edited_texts(changed, edited.built, request, store)
    clock.lap("link")
    order = list(images)
    rewritten = {place - skipped for place in request.entries for skipped in (0, LANDING_SIZE)}
    callees = changed_callees(changed)
    made = replace(
        made,
        functions=tuple(
            row
            for unit, columns in zip(changed, linked.columns, strict=False)
            for key in (unit.edited.image.key,)
            for row in function_rows(unit, columns.block, followed[key], order.index(key))
        ),
        data=tuple(f"{name} (new)" for unit in changed for name in new_variables(unit)),
        notes=(*notes, *made.notes),
        times=clock.times,
        record=record_after(
            request.record, changed, supplied.units, linked.columns, followed, linked.threads, store
        ).to_json(),
        arenas=tuple(arena.to_json() for arena in linked.arenas),
        loads=linked.loads,
        quiet=quiet_for(process, made.calls, linked.loads, bool(runs)),
        initialisers=planned(supplied.units, linked.columns, runs),
        callers=tuple(
            row
            for unit, columns in zip(changed, linked.columns, strict=False)
            for row in old_callers(
                unit.old,
                unit.edited.new,
                unit.comparison,
                columns.block,
                rewritten,
                unit.edited.name,
                callees,
                unit.edited.is_optimised,
            )
        ),
        reclaimable=_reclaimable(changed, linked) if not runs else (),
        purpose="deopt" if request.plain and all(unit.edited.flags for unit in changed) else "",
        texts=texts,
    )
    move: FrameMove | None = None
    offers: tuple[str, ...] = ()
    if request.frame:
        if request.frame.mode == OFFER:
            offers = frame_offers(request.frame, process, made, changed)
        else:
            move = frame_move(request.frame, process, made, changed)
        clock.lap("frame")
    told_of = with_hooks(made, request, process, list(images.values()), linked.arenas, found.relaid)
    return Outcome(told_of, frame=move, offers=offers)


_REMEMBERS_A_PLACE = frozenset(
    ("setjmp", "_setjmp", "__sigsetjmp", "getcontext", "makecontext", "swapcontext", "vfork", "clone")
)
"""Functions after which a place in the code that called them is kept in a form that a search may not find."""


def _reclaimable(changed: Sequence[Judged], linked: LinkedUnits) -> tuple[tuple[int, int], ...]:
    """All memory of the patch, if only replaced functions and their constants are in it: their addresses are the old
    entries. The address of a new function or variable may be kept by the kernel, or encoded by libc."""
    if linked.loads or linked.threads or any(unit.selection.added for unit in changed):
        return ()
    for unit in changed:
        graph = unit.edited.new
        rows = np.isin(graph.edges.block, unit.selection.unit.carried)
        names = {graph.symbols.name[target] for target in np.unique(graph.edges.target[rows]).tolist()}
        if not _REMEMBERS_A_PLACE.isdisjoint(names):
            return ()
    ranges = []
    for group in linked.groups:
        for protection, end in group.layout.ends().items():
            ranges.append((min(c.start for c in group.layout.chunks if c.protection == protection), end))
    return tuple(ranges)


class Clock:
    """Milliseconds by stage. "compiler": what of them the user's compilers took."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        taken_milliseconds()  # of a request that failed
        self.times: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.times[stage] = self.times.get(stage, 0) + (now - self._last) * 1000
        self.times["compiler"] = self.times.get("compiler", 0) + taken_milliseconds()
        self._last = now


def _one_of_each(judged: Sequence[Judged]) -> list[Judged]:
    """Of a source that was compiled in several ways (for a library and its static twin, say) the way that fits the
    process best: an object that memory proved, then the fewest differences. The first of equals, for they are alike.
    """
    best: dict[tuple[str, str], Judged] = {}
    for unit in judged:
        key = unit.edited.image.key, unit.edited.name
        known = best.get(key)
        if known is None or unit.misfit < known.misfit:
            best[key] = unit
    return list(best.values())


def _followed(
    judged: Sequence[Judged], edited: EditedUnits, request: Request, process: LoadedProcess, store: Store, tell: Tell
) -> dict[str, Followed]:
    """The units of each image, by its key, with what came into them from other units of that image."""
    by_image: dict[str, list[Judged]] = {}
    for unit in judged:
        by_image.setdefault(unit.edited.image.key, []).append(unit)
    found = {key: Followed(tuple(units)) for key, units in by_image.items()}
    for built in edited.built:
        key = built.module.key
        own, others = by_image.get(key, []), [unit for unit in judged if unit.edited.image.key != key]
        if not own and not built.commands.vanished:
            continue
        if built.commands.cargo:
            found[key] = follow_crates(own)
            continue

        def undefined(units: Iterable[Judged], others: Sequence[Judged] = others) -> frozenset[str]:
            return _undefined(tuple(units), others, request.record, process, store)

        found[key] = follow_definitions(own, built.commands, _scene(built, request, process, store, tell), undefined)
    return {key: one_of_each_copy(row) for key, row in found.items()}


def _scene(built: Built, request: Request, process: LoadedProcess, store: Store, tell: Tell) -> Scene:
    known = request.record.units(built.module.key)
    return Scene(known, store, built.module.image, process.read, built.mtime_ns, tell, request.colour)


def _undefined(
    units: Sequence[Judged], others: Sequence[Judged], record: Record, process: LoadedProcess, store: Store
) -> frozenset[str]:
    """Names that these units use and that nothing has. `others`: units of other images in the same patch."""
    every = [unit.selection.unit for unit in (*units, *others)]
    chosen = [unit.selection.unit for unit in (*units, *others) if unit.is_changed]
    refusals = bound(chosen, process, defined_names(every, record, store), record)[1]
    files = {unit.edited.name for unit in units}
    return frozenset(row.symbol or "" for row in refusals if row.code == "undefined-symbol" and row.file in files)


def _in_vain(judged: Sequence[Judged], edited: EditedUnits) -> list[str]:
    """Why an edit may seem to do nothing."""
    if edited.same:
        return [edited.same]
    notes = [
        f"{unit.edited.name} was compiled, and the edit changes no machine code"
        + (" that is still in the source" if unit.comparison.removed else "")
        for unit in judged[:3]
    ]
    vanished = [unit for row in edited.built for unit in row.commands.vanished]
    return notes + [f"{unit.source}, which the program was built from, is not there any more" for unit in vanished[:3]]
