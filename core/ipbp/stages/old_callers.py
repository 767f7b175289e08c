"""Functions whose old callers must not be running when they are replaced.

An optimising compiler that sees a function and its callers need not keep to the calling convention. LLVM lets a
function that only its own unit calls take fewer arguments than the source says, or know their values; gcc keeps values
in registers that the function happens to leave alone (-fipa-ra). Callers that are the same code as before are fit for
the new version, for they were compiled along with it. One that changed is replaced; but where it is still running, its
old code calls the new function as the old one was to be called. So it is with code that earlier patches replaced, and
with the code of this one when it is undone.

Two changes do that to every compiler's code: a function that takes or returns something else under its old name, and
one that throws now where its caller was compiled for one that does not, so that nothing leads the exception on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ipbp.arch.instructions import EVERYTHING
from ipbp.arch.machines import machine_of
from ipbp.graph.columns import Flags
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, Binding, BlockKind, LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND
from ipbp.protocol import OldCaller
from ipbp.stages.branches import with_local_branches
from ipbp.stages.call_sites import call_sites
from ipbp.stages.compare import Comparison, Status, part_of
from ipbp.stages.compilers import gcc_version
from ipbp.stages.copies import taken
from ipbp.stages.exception_tables import table_of
from ipbp.stages.select import OldSide

ARGUMENTS = "the compiler may have changed how one passes arguments to the other"
REGISTERS = "the old code may keep values in registers that the new code overwrites (gcc's -fipa-ra)"
SIGNATURE = "that function takes or returns something else now"
THROWS = "that function may throw now, which the old code was not compiled for: the exception would end the program"
_OPTIMISED = "; to have it patched while it runs, build this file without optimisation"
_WAYS_OUT = {ARGUMENTS: _OPTIMISED, REGISTERS: _OPTIMISED, SIGNATURE: ", or give the new function another name"}
CALLS = (EdgeKind.BRANCH32, EdgeKind.PCREL8, EdgeKind.BRANCH26)


@dataclass(frozen=True, slots=True)
class Callees:
    """What a patch does to the functions of all units, by name: `replaced` by it, `retyped`: with another signature."""

    replaced: frozenset[str] = frozenset()
    retyped: frozenset[str] = frozenset()


NO_CALLEES = Callees()


def old_callers(
    old: OldSide,
    new: LinkGraph,
    comparison: Comparison,
    place: I64,
    entries: Collection[int],
    file: str,
    callees: Callees = NO_CALLEES,
    is_optimised: bool = True,
) -> Iterator[OldCaller]:
    """The old callers, each with the function that it must not call. `place`: where the new blocks are carried to.
    `entries`: those that earlier patches rewrote. `file`: of the unit, for messages."""
    pairs = _Pairs(old.graph, new, comparison, callees, is_optimised)
    if not pairs.changed:
        return
    entry = old.address[old.graph.blocks.anchor]
    stale = {block for block in pairs.same if int(entry[block]) in entries}
    running = (pairs.changed.keys() | pairs.gone | stale) & set(np.flatnonzero(entry != UNBOUND).tolist())
    pairs.before.read(running)
    for caller in sorted(running):
        found = pairs.danger(pairs.before, caller, pairs.newer, pairs.after)
        if found:
            callee, why = found
            start, size = int(entry[caller]), int(old.graph.blocks.size[caller])
            name, way_out = old.graph.block_name(caller), _WAYS_OUT.get(why, "")
            yield OldCaller(name, callee, file, why, start, size, caller in stale, way_out=way_out)
    carried = [row for row in pairs.changed.values() if place[row] != UNBOUND]
    pairs.after.read(carried)
    for caller in sorted(carried):
        found = pairs.danger(pairs.after, caller, pairs.older, pairs.before)
        if found:
            callee, why = found
            start, size = int(place[caller]), int(new.blocks.size[caller])
            name, way_out = new.block_name(caller), _WAYS_OUT.get(why, "")
            yield OldCaller(name, callee, file, why, start, size, on_undo=True, way_out=way_out)


class _Pairs:
    """Blocks of code on both sides. `newer`, `older`: counterparts; `changed`: old -> new; `same`, `gone`: old ones."""

    def __init__(
        self, old: LinkGraph, new: LinkGraph, comparison: Comparison, callees: Callees, is_optimised: bool
    ) -> None:
        self.callees, self.is_optimised = callees, is_optimised
        known = np.flatnonzero((comparison.old_block >= 0) & (new.blocks.kind == BlockKind.CODE))
        before = comparison.old_block[known].tolist()
        self.newer = dict(zip(before, known.tolist(), strict=True))
        self.older = {row: block for block, row in self.newer.items()}
        is_changed = (comparison.status[known] == Status.CHANGED).tolist()
        self.changed = {block: self.newer[block] for block, flag in zip(before, is_changed, strict=True) if flag}
        self.same = self.newer.keys() - self.changed.keys()
        self.gone = {row for row in comparison.removed if old.blocks.kind[row] == BlockKind.CODE}
        self.before, self.after = _Calls(old), _Calls(new)
        self.is_of_gcc = gcc_version(new) > 0

    def danger(
        self, side: _Calls, caller: int, counterpart: Mapping[int, int], other: _Calls
    ) -> tuple[str, str] | None:
        """A function that this caller may not call any more when `other` is in force, and why."""
        name = side.graph.block_name(caller)
        retyped = side.called_names(caller) & self.callees.retyped if self.callees.retyped else set[str]()
        if retyped:
            return min(retyped), SIGNATURE
        thrower = self._thrower(side, caller, counterpart.get(caller), other)
        if thrower:
            return thrower, THROWS
        for callee in side.callees(caller) if self.is_optimised else ():
            row = counterpart.get(callee)
            if row is None or (callee == caller and self.is_of_gcc):
                continue
            # A function and its cold part jump into each other's middle, which no patch leads elsewhere.
            called = side.graph.block_name(callee)
            if part_of(called) == name or (part_of(name) == called and self.is_of_gcc):
                continue
            if self._is_changed(side, callee):
                local = side.is_local(callee) and other.is_local(row)
                if local and not side.is_taken(callee) and not other.is_taken(row):
                    return called, ARGUMENTS
            if self.is_of_gcc and callee != caller and self._overwrites(side, callee, other, row):
                return called, REGISTERS
        return None

    def _thrower(self, side: _Calls, caller: int, counterpart: int | None, other: _Calls) -> str:
        """A function of which the caller's counterpart is told that it may throw, and the caller that it does not; or
        one that is replaced, from which the counterpart catches, and nothing in the caller is known to do so."""
        theirs = other.exceptions(counterpart) if counterpart is not None else None
        if theirs is None:
            return ""
        own = side.exceptions(caller) or _Exceptions()
        thrower = min((own.silent - own.loud) & theirs.loud, default="")
        if thrower:
            return thrower
        # LLVM's rows may go on over calls that throw nothing, as long as none of them leads anywhere.
        expected = own.loud if self.is_of_gcc else own.padded
        return min((side.called_names(caller) - expected) & theirs.caught & self.callees.replaced, default="")

    def _overwrites(self, side: _Calls, callee: int, other: _Calls, row: int) -> bool:
        """Whether the other version changes registers that this one is sure to leave alone."""
        sure, reached = side.changes(callee, False)
        if sure == EVERYTHING or not any(self._is_changed(side, block) for block in reached):
            return False
        return bool(other.changes(row, True)[0] & ~sure)

    def _is_changed(self, side: _Calls, block: int) -> bool:
        return (block if side is self.before else self.older.get(block, -1)) in self.changed


@dataclass(frozen=True, slots=True)
class _Exceptions:
    """Names of functions that a function calls: where its exception table says that exceptions may come out (`loud`),
    where it does not know the call (`silent`), where they lead to code of it (`padded`) and may be `caught`."""

    loud: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    padded: set[str] = field(default_factory=set)
    caught: set[str] = field(default_factory=set)


class _Calls:
    """Who calls whom in one graph, as far as it is asked."""

    def __init__(self, graph: LinkGraph) -> None:
        self.graph = graph
        self._read: set[int] = set()
        self._own: dict[int, tuple[int, bool]] = {}  # what blocks change themselves
        self._taken: tuple[LinkGraph | None, Flags] = (None, np.empty(0, dtype=np.bool_))
        self._exceptions: dict[int, _Exceptions | None] = {}

    def callees(self, block: int) -> list[int]:
        """Blocks of code that this one calls or jumps to, itself among them when it calls itself."""
        home = self._homes(block)
        kinds = self.graph.blocks.kind[np.maximum(home, 0)]
        return np.unique(home[(home >= 0) & (kinds == BlockKind.CODE)]).tolist()  # type: ignore[no-any-return]

    def changes(self, block: int, is_other: bool) -> tuple[int, set[int]]:
        """The registers that a call of this function may change, and the blocks that it may reach. Of the side that
        will be in force (`is_other`) all that may be; else what the compiler of the caller is sure to have known."""
        found, seen, waiting = 0, {block}, [block]
        while waiting and found != EVERYTHING:
            at = waiting.pop()
            home = self._homes(at)
            if at not in self._own:
                self._own[at] = machine_of(self.graph.machine).changed_registers(bytes(self.graph.content(at)))
            registers, jumps = self._own[at]
            is_code = (home >= 0) & (self.graph.blocks.kind[np.maximum(home, 0)] == BlockKind.CODE)
            away = not is_code.all() or registers == EVERYTHING or (jumps and is_other and not self._has_table(at))
            found = EVERYTHING if away else found | registers
            following = set(home[is_code].tolist()) - seen
            self.read(following)
            seen |= following
            waiting += following
        return found, seen

    def called_names(self, block: int) -> set[str]:
        """The names of what this block calls or jumps to."""
        return {name for name, _place in self._named_calls(block)}

    def exceptions(self, block: int) -> _Exceptions | None:
        """None for a function without an exception table, or with one that is not understood."""
        if block not in self._exceptions:
            self._exceptions[block] = self._told_exceptions(block)
        return self._exceptions[block]

    @cached_property
    def _tables(self) -> I64:
        return table_of(self.graph)

    def _told_exceptions(self, block: int) -> _Exceptions | None:
        table = int(self._tables[block])
        sites = call_sites(bytes(self.graph.content(table))) if table >= 0 else None
        if sites is None:
            return None
        found, starts = _Exceptions(), [row.start for row in sites]  # ascending
        for name, place in self._named_calls(block):
            at = bisect_right(starts, place) - 1
            site = sites[at] if at >= 0 and place < sites[at].end else None
            (found.silent if site is None else found.loud).add(name)
            if site is not None and site.has_pad:
                found.padded.add(name)
            if site is not None and site.catches:
                found.caught.add(name)
        return found

    def _named_calls(self, block: int) -> list[tuple[str, int]]:
        """The name of each call's or jump's target, and where in the block it is."""
        self.read([block])
        edges, rows = self.graph.edges, self.graph.edges_of(block)
        mask = is_one_of(edges.kind[rows], CALLS)
        names = self.graph.symbols.name.take(edges.target[rows][mask])
        offsets = edges.offset[rows][mask].tolist()
        return [(name, place) for name, place in zip(names, offsets, strict=True) if name]

    def is_local(self, block: int) -> bool:
        return bool(self.graph.symbols.binding[self.graph.blocks.anchor[block]] == Binding.LOCAL)

    def is_taken(self, block: int) -> bool:
        """Whether its address is: then it takes what the source says."""
        known, flags = self._taken
        if known is not self.graph:
            flags = taken(self.graph)
            self._taken = self.graph, flags
        return bool(flags[block])

    def read(self, blocks: Collection[int]) -> None:
        """Find the calls in these blocks that the assembler kept to itself."""
        fresh = sorted(set(blocks) - self._read)
        if fresh:
            self._read.update(fresh)
            self.graph = with_local_branches(self.graph, fresh)

    def _homes(self, block: int) -> I64:
        """The block, or what stands for none, of each call and jump out of this block."""
        self.read([block])
        edges, rows = self.graph.edges, self.graph.edges_of(block)
        targets = edges.target[rows][is_one_of(edges.kind[rows], CALLS)]
        return self.graph.symbols.block[targets].astype(np.int64)

    def _has_table(self, block: int) -> bool:
        """Whether it uses a table that leads back into it: that of a switch."""
        graph = self.graph
        home = graph.symbols.block[graph.edges.target[graph.edges_of(block)]]
        tables = np.unique(home[(home >= 0) & (home != block)])
        inside = np.isin(graph.edges.block, tables) & (graph.symbols.block[graph.edges.target] == block)
        return bool(inside.any())
