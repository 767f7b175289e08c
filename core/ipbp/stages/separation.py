"""New variables are initialised without those that exist: the compiler's one function for a unit, taken apart.

What initialises the variables of a unit runs as one function, in the order of the source. In code that no optimiser
has touched each variable has a stretch of it (gcc), or a function of its own that is called (clang). In the copy that
the patch carries, a jump leads over each stretch of a variable that exists, and its call is gone; everything else,
unwind rows and exception tables included, stays as the compiler made it.

Which stretch is whose is told by the line table, and believed only where the code agrees: nothing is taken from a
stretch that is jumped over, nothing jumps into one or out of one, and each refers to its variable. What initialises
a variable with a guard stays, for the guard says whether it is to be done.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from ipbp.arch.flow import Flow, Step, reachable
from ipbp.arch.machines import machine_of
from ipbp.graph.columns import I64, Flags
from ipbp.graph.edges import EdgeKind
from ipbp.graph.layouts import SourcePlace
from ipbp.graph.model import BlockKind, Edges, LinkGraph
from ipbp.stages.anchors import with_anchored_uses
from ipbp.stages.initialisers import STATE, THREAD_GUARD, THREAD_STATE, guard_of, variables_of, with_initialisers

_ONE_EACH = "__cxx_global_var_init"
_ALL_IN_ONE = "__static_initialization_and_destruction_0"
_OPTIMISED = "in optimised code it cannot be told which part is whose"
_UNTOLD = "its line table does not tell which part is whose"


@dataclass(frozen=True, slots=True)
class Sources:
    """What debug information says. `place`: where each variable is defined, by block. `rows`: for a block of code
    (offset, place) where the code of another place begins, ascending. `plain`: blocks that hold a variable's value as
    it is."""

    place: Mapping[int, SourcePlace]
    rows: Callable[[int], Sequence[tuple[int, SourcePlace]]]
    plain: frozenset[int] = frozenset()


class Inseparable(Exception):
    """Why a function cannot be taken apart, as the second half of a sentence."""


def separated(
    graph: LinkGraph, entries: Iterable[int], carried: Collection[int], is_new: Flags, sources: Sources
) -> LinkGraph:
    """The graph, in which the functions with these blocks, which the unit's arrays call, initialise new variables
    only. `carried`: blocks that the patch carries; the code that runs stays as it is. `is_new`: of each block.
    Errors: `Inseparable`."""
    wholes: dict[int, None] = {}
    for entry in entries:
        found = [part for part in with_initialisers(graph, entry) if _ALL_IN_ONE in graph.block_name(part)]
        targets = graph.symbols.block[graph.edges.target[graph.edges_of(entry)]].tolist()
        if len(found) == 1:
            wholes[found[0]] = None  # once for all priorities
        elif (
            entry in carried
            and targets
            and all(target >= 0 and graph.block_name(target).startswith(_ONE_EACH) for target in targets)
        ):
            graph = _without_calls(graph, entry, is_new, sources)
        else:
            raise Inseparable(_OPTIMISED)
    for whole in wholes:
        if whole not in carried:
            raise Inseparable(_UNTOLD)
        graph = _without_stretches(graph, whole, is_new, sources)
    return graph


def separated_in_threads(graph: LinkGraph, block: int, is_new: Flags, sources: Sources) -> LinkGraph:
    """The graph, in which this function, by which a thread makes the unit's thread-local variables, makes new ones
    only. Errors: `Inseparable`."""
    if any(graph.block_name(part).startswith(_ONE_EACH) for part in with_initialisers(graph, block)):
        return _without_calls(graph, block, is_new, sources, THREAD_STATE)
    return _without_stretches(graph, block, is_new, sources, THREAD_STATE)


def _without_calls(
    graph: LinkGraph, entry: int, is_new: Flags, sources: Sources, kinds: Sequence[BlockKind] = STATE
) -> LinkGraph:
    code, flow, meant = bytes(graph.content(entry)), machine_of(graph.machine).flow, with_anchored_uses(graph)
    dropped = []
    for row in range(graph.edges_of(entry).start, graph.edges_of(entry).stop):
        called = int(graph.symbols.block[graph.edges.target[row]])
        if called >= 0 and graph.block_name(called) == THREAD_GUARD:
            continue
        if called < 0 or not graph.block_name(called).startswith(_ONE_EACH):
            raise Inseparable(_OPTIMISED)
        if _is_for_new(meant, called, is_new, sources, kinds):
            continue
        without = flow.without_call(code, EdgeKind(int(graph.edges.kind[row])), int(graph.edges.offset[row]))
        if without is None:
            raise Inseparable(_OPTIMISED)
        code = without
        dropped.append(row)
    return _with_code(graph, entry, code, dropped)


def _is_for_new(graph: LinkGraph, block: int, is_new: Flags, sources: Sources, kinds: Sequence[BlockKind]) -> bool:
    fresh, existing = variables_of(graph, [block], is_new, kinds)
    if fresh and existing:
        # Its rows begin with the variable's line.
        lines = [place[:2] for _, place in sources.rows(block) if place[1]]
        owners = [home for home, place in sources.place.items() if lines and place[:2] == lines[0]]
        if not owners or len({bool(is_new[home]) for home in owners}) > 1:
            raise Inseparable(_UNTOLD)
        return bool(is_new[owners[0]])
    if not fresh and not existing:
        raise Inseparable(_UNTOLD)
    return bool(fresh)


_Label = frozenset[int]
"""Blocks of the variables that a stretch is for: one, unless a macro defines several. Empty where it is not known."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Instructions that run one after the other. `stays`: it is not jumped over; None where that is not known."""

    steps: tuple[Step, ...]
    label: _Label
    stays: bool | None

    @property
    def start(self) -> int:
        return self.steps[0].offset

    @property
    def end(self) -> int:
        return self.steps[-1].end


def _without_stretches(
    graph: LinkGraph, block: int, is_new: Flags, sources: Sources, kinds: Sequence[BlockKind] = STATE
) -> LinkGraph:
    code, flow = bytes(graph.content(block)), machine_of(graph.machine).flow
    rows = flow.steps(code)
    if rows is None:
        raise Inseparable(_OPTIMISED)
    main = list(reachable(rows))
    if any(step.is_indirect for step in main):
        raise Inseparable("it jumps to places that its code does not tell")
    stretches = _joined(_decided(_Function(with_anchored_uses(graph), block, is_new, sources, kinds).stretches(main)))
    # The function's own: its arguments, and what it pushed before there was a frame to count from.
    given = {place for step in main if not step.keeps for place in step.gives}
    own = {place for step in main for place in (step.gives if step.keeps else step.takes - given)}
    changed, dropped = bytearray(code), []
    for number, stretch in enumerate(stretches):
        if stretch.stays:
            continue
        behind = stretches[number + 1].start if number + 1 < len(stretches) else len(code)
        _require_whole(stretch, behind, main, flow)
        if number + 1 < len(stretches) and _needs(stretches[number + 1]) - own:
            raise Inseparable("what follows it uses what it leaves behind")
        changed[stretch.start : stretch.start + flow.jump_size] = flow.jump(stretch.start, behind)
        here = graph.edges_of(block)
        offsets = graph.edges.offset[here]
        dropped += (  # what never runs needs nothing
            np.flatnonzero(_within(offsets, stretch.start, stretch.end)) + here.start
        ).tolist()
    return _with_code(graph, block, bytes(changed), dropped)


class _Function:
    """One function of gcc's that initialises all variables of a unit."""

    def __init__(
        self, graph: LinkGraph, block: int, is_new: Flags, sources: Sources, kinds: Sequence[BlockKind]
    ) -> None:
        self.graph, self.block, self.is_new, self.kinds = graph, block, is_new, kinds
        self.flow = machine_of(graph.machine).flow
        self.rows = list(sources.rows(block))
        if not self.rows:
            raise Inseparable("it has no line table")
        self.offsets = [offset for offset, _ in self.rows]
        self.defined: dict[SourcePlace, set[int]] = {}
        for home, place in sources.place.items():
            self.defined.setdefault(place, set()).add(home)
        self.places = sorted(self.defined)
        # What belongs to the function itself; one for thread-local variables stands where the first of them does.
        self.neutral = self.rows[0][1] if self.rows[0][1] not in self.defined else None

    def stretches(self, main: Sequence[Step]) -> list[_Stretch]:
        """All of the function, in order: its frame and its arguments, and what is of each variable."""
        own = self._own(main)
        labels = [(step.offset in own, self._label(step)) for step in main]
        found = []
        for (is_own, label), pairs in groupby(zip(labels, main, strict=True), key=lambda pair: pair[0]):
            stretch = tuple(step for _, step in pairs)
            stays = True if is_own else self._stays(label, stretch)
            found.append(_Stretch(stretch, frozenset() if is_own else label, stays))
        self._check(found)
        return found

    def _own(self, main: Sequence[Step]) -> set[int]:
        """Offsets of what sets up the frame and takes it down, and of what asks for the arguments (gcc before 14)."""
        asking = self.flow.asking(main, bytes(self.graph.content(self.block)))
        if asking is None:
            raise Inseparable(_OPTIMISED)
        own = {*asking, *self._asking(main)}
        ends = 0
        for number, step in enumerate(main):
            if self._label(step):
                break
            ends = number + 1 if step.frames else ends
        own.update(step.offset for step in main[:ends])
        for step in main[::-1]:
            if not (step.frames or _is_idle(step) or (step.gives and step.gives <= self.flow.saved)):
                break
            own.add(step.offset)
        return own

    def _asking(self, main: Sequence[Step]) -> list[int]:
        """Offsets of what asks whether a thread has done this, and says that it has."""
        names = self.graph.symbols.name
        rows = range(self.graph.edges_of(self.block).start, self.graph.edges_of(self.block).stop)
        places = [self.graph.edges.offset[row] for row in rows if names[self.graph.edges.target[row]] == THREAD_GUARD]
        last = max(places, default=-1)
        return [step.offset for step in main if step.offset <= last]

    def _label(self, step: Step) -> _Label:
        row = bisect_right(self.offsets, step.offset) - 1
        place = self.rows[row][1]
        if place == self.neutral:
            return frozenset()
        at = bisect_right(self.places, place) - 1
        known = at >= 0 and self.places[at][0] == place[0]
        return frozenset(self.defined[self.places[at]]) if known else frozenset()

    def _stays(self, label: _Label, stretch: tuple[Step, ...]) -> bool | None:
        if not label:
            return None
        new = {bool(self.is_new[home]) or self._has_guard(home) for home in label}
        if len(new) > 1:
            raise Inseparable("a macro makes them together")
        return new.pop()

    def _has_guard(self, home: int) -> bool:
        guard = guard_of(self.graph.block_name(home))
        return any(
            self.graph.block_name(other) == guard and not self.is_new[other] for other in self._refers(0, 1 << 40)
        )

    def _check(self, stretches: Sequence[_Stretch]) -> None:
        """That each variable has its part in one piece, and that its part is of it."""
        order = [stretch.label for stretch in stretches if stretch.label]
        found: dict[_Label, set[int]] = {}
        for stretch in stretches:
            if stretch.label:
                found.setdefault(stretch.label, set()).update(self._refers(stretch.start, stretch.end))
        if len([label for label, _ in groupby(order)]) != len(found):
            raise Inseparable(_UNTOLD)
        for label, homes in found.items():
            if not homes & label:
                raise Inseparable(_UNTOLD)
            stays = next(stretch.stays for stretch in stretches if stretch.label == label)
            if not stays and any(self.is_new[home] for home in homes):
                raise Inseparable(f"so does '{self.graph.block_name(min(label))}', which does not get its new one")

    def _refers(self, start: int, end: int) -> set[int]:
        """The unit's variables that the code between these offsets refers to."""
        graph = self.graph
        here = graph.edges_of(self.block)
        homes = graph.symbols.block[graph.edges.target[here][_within(graph.edges.offset[here], start, end)]]
        return {home for home in homes.tolist() if home >= 0 and graph.blocks.kind[home] in self.kinds}


def _decided(stretches: Sequence[_Stretch]) -> list[_Stretch]:
    """The same, where what is of nobody goes with what it belongs to: what takes something from it, or what it takes
    something from."""
    return [
        replace(row, stays=_belongs(row, stretches[:number][::-1], stretches[number + 1 :]))
        if row.stays is None
        else row
        for number, row in enumerate(stretches)
    ]


def _belongs(stretch: _Stretch, before: Sequence[_Stretch], after: Sequence[_Stretch]) -> bool:
    """Whether it stays. `before`: what is in front of it, the next one first."""
    one, other = _of_one_variable(before), _of_one_variable(after)
    is_idle = all(map(_is_idle, stretch.steps))
    if one is None or other is None or one.stays == other.stays or is_idle:
        return bool((one or other or stretch).stays) or is_idle
    to_other, to_one = bool(_gives(stretch) & _needs(other)), bool(_gives(one) & _needs(stretch))
    if to_other == to_one:
        raise Inseparable(_UNTOLD)
    return bool(other.stays if to_other else one.stays)


def _of_one_variable(stretches: Sequence[_Stretch]) -> _Stretch | None:
    """The first of these that is of something, with those behind it that are of the same or of nothing."""
    first = next((row for row in stretches if row.stays is not None), None)
    if first is None:
        return None
    found: list[_Stretch] = []
    for row in stretches:
        if row.stays is not None and (row.label != first.label or row.stays != first.stays):
            break
        found.append(row)
    ordered = sorted((step for row in found for step in row.steps), key=lambda step: step.offset)
    return _Stretch(tuple(ordered), first.label, first.stays)


def _joined(stretches: Iterable[_Stretch]) -> list[_Stretch]:
    found = []
    for stays, parts in groupby(stretches, key=lambda stretch: bool(stretch.stays)):
        found.append(_Stretch(tuple(step for part in parts for step in part.steps), frozenset(), stays))
    return found


def _needs(stretch: _Stretch) -> set[str | int]:
    """What it takes and does not give itself before."""
    given: set[str | int] = set()
    needed: set[str | int] = set()
    for step in stretch.steps:
        if step.keeps or step.frames:
            continue
        needed |= step.takes - given
        given |= step.gives
    return needed


def _gives(stretch: _Stretch) -> set[str | int]:
    return {place for step in stretch.steps for place in step.gives}


def _is_idle(step: Step) -> bool:
    return not step.is_call and not step.takes and not step.gives


def _require_whole(stretch: _Stretch, behind: int, main: Collection[Step], flow: Flow) -> None:
    if stretch.end - stretch.start < flow.jump_size:
        raise Inseparable(_OPTIMISED)
    last = stretch.steps[-1]
    inside = {step.offset for step in stretch.steps}
    leaves = any(step.target >= 0 and step.target not in inside and step.target != behind for step in stretch.steps)
    enters = any(step.target in inside and step.target != stretch.start for step in main if step.offset not in inside)
    leaves |= any(step.ends and step.target < 0 for step in stretch.steps)
    if leaves or enters or (last.end != behind and last.target != behind):
        raise Inseparable("its code is not in one piece")


def _within(offsets: I64, start: int, end: int) -> Flags:
    result: Flags = (offsets >= start) & (offsets < end)
    return result


def _with_code(graph: LinkGraph, block: int, code: bytes, dropped: Sequence[int]) -> LinkGraph:
    """The graph with other code in a block, of the same size, and without these edges."""
    section, start = int(graph.blocks.section[block]), int(graph.blocks.offset[block])
    content = bytearray(graph.sections[section].content)
    content[start : start + len(code)] = code
    kept = np.ones(len(graph.edges), dtype=np.bool_)
    kept[list(dropped)] = False
    edges = graph.edges
    left = Edges(edges.block[kept], edges.offset[kept], edges.kind[kept], edges.target[kept], edges.addend[kept])
    first = np.searchsorted(left.block, np.arange(len(graph.blocks) + 1)).astype(np.int64)
    return replace(graph, sections=graph.sections.holding({section: content}), edges=left, first_edge=first)
