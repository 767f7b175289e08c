"""Who refers to a symbol, seen through inlining.

A compiler that inlines `helper` into `main` makes `main` the one that refers to helper's static variable. So the
users of a variable are the blocks that refer to it, and where one of those does not exist in the other object, the
ones that refer to that in turn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property

import numpy as np

from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.branches import with_local_branches
from ipbp.stages.identity import base_name

Mark = tuple[str, str]
NO_MEMBER = -1


class Referrers:
    """The references of one graph, for the symbols `members` whose counterparts are looked for. Read only."""

    def __init__(self, graph: LinkGraph, members: Collection[int]) -> None:
        self.graph = graph
        self.members = frozenset(members)
        self._member_of_block = {int(graph.symbols.block[row]): row for row in sorted(self.members, reverse=True)}
        self._name = [base_name(graph.symbols.name[anchor]) for anchor in graph.blocks.anchor.tolist()]

    @cached_property
    def names(self) -> frozenset[str]:
        """Base names of all named blocks."""
        return frozenset(name for name in self._name if name)

    def sequences(self) -> Mapping[str, list[tuple[Mark, int]]]:
        """For each named block that refers to a member: its references in order, as (mark, member or NO_MEMBER)."""
        return self._sequences

    @cached_property
    def _sequences(self) -> dict[str, list[tuple[Mark, int]]]:
        graph = self.graph
        home = graph.symbols.block[graph.edges.target]
        referring = np.unique(graph.edges.block[np.isin(home, list(self._member_of_block))])
        result: dict[str, list[tuple[Mark, int]]] = {}
        for block in referring.tolist():
            if self._name[block]:
                result.setdefault(self._name[block], []).extend(self._marks(block))
        return result

    def _marks(self, block: int) -> list[tuple[Mark, int]]:
        graph = self.graph
        marks = []
        for target in graph.edges.target[graph.edges_of(block)].tolist():
            home = int(graph.symbols.block[target])
            member = self._member_of_block.get(home, NO_MEMBER)
            if home < 0 or self._name[home]:
                name = base_name(graph.symbols.name[target]) if home < 0 else self._name[home]
                marks.append((("name", name), member))
            else:
                content = bytes(graph.content(home)) if graph.first_edge[home] == graph.first_edge[home + 1] else b""
                marks.append((("content", content.rstrip(b"\0").hex()), NO_MEMBER))
        return marks

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
