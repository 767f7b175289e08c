"""Where each old copy of a function leads, when the codegen units of a crate have several copies of it.

Every copy has an entry of its own in the program, and each must lead to new code when the function changed. Which of
the new copies that may be is decided by who calls: code that is the same as before and called this copy calls a certain
new one now, and was compiled for that one. (LLVM lets what is local to a codegen unit take fewer arguments, or know
some of them, when all callers are in sight; never when the function's address is taken. What has an address
stored somewhere gets a copy of which that is true, too.) Where that does not decide, the edit is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.columns import I64, Flags
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.stages.aligned import aligned_edges
from ipbp.stages.compare import Comparison, Status, alike
from ipbp.stages.correlate import UNPAIRED, Correlation
from ipbp.stages.meaning import meanings
from ipbp.stages.name_numbers import base_name
from ipbp.stages.rust_pairs import NO_GROUP


@dataclass(frozen=True, slots=True)
class Copies:
    """`correlation`, `comparison`: with every new copy that an old one becomes. `leads`: (old block, new block) for
    each old copy beside those: its entry is to lead to where that new copy's code is found. `same`: the same for old
    copies that equal what the new copy runs as."""

    correlation: Correlation
    comparison: Comparison
    leads: tuple[tuple[int, int], ...] = ()
    same: tuple[tuple[int, int], ...] = ()
    refusals: tuple[Refusal, ...] = ()

    def is_copy(self, block: int) -> bool:
        """Whether there are several of this new block."""
        return bool(self.correlation.new_group[block] != NO_GROUP)


def place_copies(old: LinkGraph, new: LinkGraph, correlation: Correlation, comparison: Comparison) -> Copies:
    """What becomes of every old copy. `several-copies` where it is not certain."""
    members = _members(correlation)
    if not members:
        return Copies(correlation, comparison)
    return _Placing(old, new, correlation, comparison).run(members)


@dataclass(slots=True)
class _Group:
    old: list[int]
    new: list[int]


def _members(correlation: Correlation) -> dict[int, _Group]:
    """The groups that are on both sides, by their first old block."""
    found: dict[int, _Group] = {}
    for block in np.flatnonzero(correlation.old_group != NO_GROUP).tolist():
        found.setdefault(int(correlation.old_group[block]), _Group([], [])).old.append(block)
    for block in np.flatnonzero(correlation.new_group != NO_GROUP).tolist():
        found[int(correlation.new_group[block])].new.append(block)
    return {number: group for number, group in found.items() if group.new}


class _Placing:
    def __init__(self, old: LinkGraph, new: LinkGraph, correlation: Correlation, comparison: Comparison) -> None:
        self.old, self.new = old, new
        self.correlation, self.comparison = correlation, comparison
        self.symbol, self.block = correlation.symbol.copy(), correlation.block.copy()
        self.status, self.reason = comparison.status.copy(), dict(comparison.reason)
        self.before, self.after = meanings(old, new, correlation)
        self.old_taken = taken(old)
        self.new_taken = taken(new)
        self.calls = _unchanged_calls(old, new, correlation, comparison)
        self.leads: list[tuple[int, int]] = []
        self.same: list[tuple[int, int]] = []
        self.refusals: list[Refusal] = []

    def run(self, members: Mapping[int, _Group]) -> Copies:
        for group in members.values():
            found = {int(self.block[block]) for block in group.new}
            left = [block for block in group.old if block not in found]
            aims = {block: self._aim(block, group) for block in left}
            if None in aims.values():
                name = self.new.block_name(group.new[0])
                self.refusals.append(_refusal(base_name(name), len(group.old), self.new.path))
                continue
            for block, aim in aims.items():
                if aim is not None:
                    self._lead(block, aim)
        removed = tuple(block for block in self.comparison.removed if block not in self._led())
        comparison = replace(
            self.comparison, status=self.status, reason=self.reason, old_block=self.block, removed=removed
        )
        correlation = replace(self.correlation, symbol=self.symbol, block=self.block)
        return Copies(correlation, comparison, tuple(self.leads), tuple(self.same), tuple(self.refusals))

    def _led(self) -> set[int]:
        return {int(block) for block in self.block} | {one for one, _ in (*self.leads, *self.same)}

    def _aim(self, block: int, group: _Group) -> int | None:
        """The new copy that this old one may become."""
        called = self.calls.get(block, set())
        if any(not self._equal(one, other) for one, other in combinations(called, 2)):
            return None
        possible = [other for other in group.new if not called or other in called]
        if self.old_taken[block]:
            possible = [other for other in possible if self.new_taken[other]]
        free = [other for other in possible if self.block[other] == UNPAIRED]
        return next(iter([*free, *possible]), None)

    def _equal(self, one: int, other: int) -> bool:
        pair, row = np.array([one]), np.array([other])
        return bool(alike(self.after, pair, self.after, row, self.correlation)[0])

    def _lead(self, block: int, aim: int) -> None:
        if self.block[aim] == UNPAIRED:
            self.block[aim] = block
            self.symbol[self.new.blocks.anchor[aim]] = self.old.blocks.anchor[block]
            self.status[aim], self.reason[aim] = Status.CHANGED, "the code differs"
        elif alike(self.before, np.array([block]), self.after, np.array([aim]), self.correlation)[0]:
            self.same.append((block, aim))
        else:
            self.leads.append((block, aim))


def taken(graph: LinkGraph) -> Flags:
    """For each block whether something else than a call or a jump refers to it."""
    edges = graph.edges
    home = graph.symbols.block[edges.target]
    rows = (home >= 0) & ~is_one_of(edges.kind, (EdgeKind.BRANCH32, EdgeKind.PCREL8, EdgeKind.BRANCH26))
    found = np.zeros(len(graph.blocks), dtype=np.bool_)
    found[home[rows]] = True
    return found


def _unchanged_calls(
    old: LinkGraph, new: LinkGraph, correlation: Correlation, comparison: Comparison
) -> dict[int, set[int]]:
    """For each old copy the new ones that code which did not change calls in its place."""
    _, old_edge, new_edge = aligned_edges(old, new, comparison, correlation.block)
    one, other = _home(old, old_edge), _home(new, new_edge)
    wanted = (one >= 0) & (other >= 0)
    wanted[wanted] = correlation.old_group[one[wanted]] != NO_GROUP
    found: dict[int, set[int]] = {}
    for first, second in set(zip(one[wanted].tolist(), other[wanted].tolist(), strict=True)):
        found.setdefault(first, set()).add(second)
    return found


def _home(graph: LinkGraph, edge: I64) -> I64:
    home: I64 = graph.symbols.block[graph.edges.target[edge]].astype(np.int64)
    return home


def _refusal(name: str, number: int, file: str) -> Refusal:
    return Refusal(
        "several-copies",
        f"the compiler made {number} copies of '{name}' for different callers, and the edit does not tell which of the "
        "new ones each becomes",
        "Mark it `#[inline(never)]`, or build with `codegen-units = 1`, and start the program once more.",
        name,
        file,
    )
