"""Who refers to a symbol, seen through inlining.

A compiler that inlines `helper` into `main` makes `main` the one that refers to helper's static variable. So the
users of a variable are the blocks that refer to it, and where one of those does not exist in the other object, the
ones that refer to that in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ipbp.graph.columns import I64
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.graph.rows import ByteRows, distinct, intern, ragged
from ipbp.stages.branches import with_local_branches
from ipbp.stages.name_numbers import NameNumbers, base_name

NO_MEMBER = -1


class Referrers:
    """The references of one graph, for the symbols `members` whose counterparts are looked for. Read only."""

    def __init__(self, graph: LinkGraph, members: I64) -> None:
        self.graph = graph
        self.member_of_block = np.full(len(graph.blocks), NO_MEMBER, dtype=np.int64)
        self.member_of_block[graph.symbols.block[members[::-1]]] = members[::-1]

    @cached_property
    def _name(self) -> list[str]:
        return [base_name(name) for name in self.graph.symbols.name.take(self.graph.blocks.anchor)]

    @cached_property
    def names(self) -> frozenset[str]:
        """Base names of all named blocks."""
        return frozenset(name for name in self._name if name)

    def shares_users(self, member: int, other: Referrers, counterpart: int) -> bool:
        """Whether some block uses `member` here and `counterpart` there, seen through inlining on either side."""
        return not self.users(member, other.names).isdisjoint(other.users(counterpart, self.names))

    def users(self, member: int, known: frozenset[str]) -> frozenset[str]:
        """Names of the blocks that refer to the member; one that is not `known` is replaced by its own users."""
        found: set[str] = set()
        seen: set[int] = set()
        waiting = [int(self.graph.symbols.block[member])]
        while waiting:
            block = waiting.pop()
            for referrer in self._referring.get(block, ()):
                if referrer in seen:
                    continue
                seen.add(referrer)
                if self._name[referrer] in known and self._name[referrer]:
                    found.add(self._name[referrer])
                else:
                    waiting.append(referrer)
        return frozenset(found)

    @cached_property
    def _referring(self) -> dict[int, tuple[int, ...]]:
        graph = with_local_branches(self.graph)
        home = graph.symbols.block[graph.edges.target]
        inside = home >= 0
        pairs = np.unique(np.stack([home[inside], graph.edges.block[inside]], axis=1), axis=0)
        kinds = graph.blocks.kind
        result: dict[int, list[int]] = {}
        for target, referrer in pairs.tolist():
            if kinds[target] != BlockKind.INIT and target != referrer:
                result.setdefault(target, []).append(referrer)
        return {target: tuple(rows) for target, rows in result.items()}


@dataclass(frozen=True, slots=True)
class ReferenceMarks:
    """The references of all functions (and other named blocks) that refer to a member, in their order.

    `function`: number of the base name, ascending; functions of one base name are one. The references of row f are
    `first[f]:first[f + 1]` of the columns `mark`, what is referred to, as far as it has a name or a content of its
    own, and `member`, the symbol or NO_MEMBER.
    """

    function: I64
    first: I64
    mark: I64
    member: I64

    def sequence(self, row: int) -> list[tuple[int, int]]:
        part = slice(int(self.first[row]), int(self.first[row + 1]))
        return list(zip(self.mark[part].tolist(), self.member[part].tolist(), strict=True))


def reference_marks(old: Referrers, new: Referrers, names: NameNumbers) -> tuple[ReferenceMarks, ReferenceMarks]:
    """The marks of both sides, in the same numbers."""
    edges = [_edges_of_users(view) for view in (old, new)]
    marks, contents = [], []
    for view, edge, base in zip((old, new), edges, (names.old_base, names.new_base), strict=True):
        graph, target = view.graph, view.graph.edges.target[edge]
        home = graph.symbols.block[target]
        block = np.maximum(home, 0)
        named = graph.symbols.name.take(graph.blocks.anchor).are_given()[block]
        anchor = np.where(home >= 0, graph.blocks.anchor[block], target)
        unnamed = (home >= 0) & ~named
        marks.append(np.where(unnamed, -1, base[anchor]))
        contents.append(_contents(graph, block[unnamed]))
    result = []
    for view, edge, mark, base, number in zip(
        (old, new), edges, marks, (names.old_base, names.new_base), intern(*contents), strict=True
    ):
        graph, home = view.graph, view.graph.symbols.block[view.graph.edges.target[edge]]
        member = np.where((home >= 0) & (mark >= 0), view.member_of_block[np.maximum(home, 0)], NO_MEMBER)
        mark[mark < 0] = names.limit + number
        function = base[graph.blocks.anchor[graph.edges.block[edge]]]
        order = np.argsort(function, kind="stable")
        some = distinct(function)
        first = np.append(np.searchsorted(function[order], some), len(function))
        result.append(ReferenceMarks(some, first, mark[order], member[order]))
    return result[0], result[1]


def _edges_of_users(view: Referrers) -> I64:
    """All edges of the named blocks that refer to a member."""
    graph = view.graph
    home = graph.symbols.block[graph.edges.target]
    refers = (home >= 0) & (view.member_of_block[np.maximum(home, 0)] != NO_MEMBER)
    chosen = np.zeros(len(graph.blocks), dtype=np.bool_)
    chosen[graph.edges.block[refers]] = True
    chosen &= graph.symbols.name.take(graph.blocks.anchor).are_given()
    block = np.flatnonzero(chosen)
    owner, within = ragged(np.diff(graph.first_edge)[block])
    return graph.first_edge[block][owner] + within


def _contents(graph: LinkGraph, block: I64) -> ByteRows:
    """What unnamed blocks hold, as far as it has no fixups."""
    held = graph.sections.content
    section, offset = graph.blocks.section[block], graph.blocks.offset[block]
    plain = graph.first_edge[block] == graph.first_edge[block + 1]
    length = np.where(plain, np.clip(held.length[section] - offset, 0, graph.blocks.size[block]), 0)
    return ByteRows(held.octets, held.start[section] + offset, length).without_end_zeros()
