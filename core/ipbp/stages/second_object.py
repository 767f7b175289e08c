"""A second object of the same source, compiled without optimisation, of which only the initialisers count.

In optimised code it cannot be told which part of a unit's one function initialises which variable. What runs once may
as well be slow: so the unit is compiled once more, that function is taken apart there (`stages.separation`), and the
patch brings it as a unit of its own, beside the optimised one. Everything that the first object has and that has a
state or a place in the process is the first object's: its variables, and functions that run already. Of a local
variable the optimiser may have made something else (LLVM keeps a number that is only ever 0 or 3 in one bit, and a
struct in parts): both objects have to agree on its size, and debug information that it holds its value as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipbp.graph.columns import Flags
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import UNDEFINED, Binding, BlockKind, LinkGraph, Visibility
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.anchors import with_anchored_uses
from ipbp.stages.initialisers import GUARD, STATE, Run, entries, priority, variables_of, with_initialisers
from ipbp.stages.separation import Inseparable, Sources, separated
from ipbp.stages.unwind import unwind_links

_OWN = re.compile(r"_GLOBAL__|_Z41__static_init|__cxx_global_|__tcf_")
"""Functions that compilers make for initialisers, and number as they come."""
_WRITABLE = (*STATE, BlockKind.TLS_DATA, BlockKind.TLS_BSS)
_MARK = ".of_first_object"
SUFFIX = " (without optimisation)"
"""Of the second unit's name."""


@dataclass(frozen=True, slots=True)
class Beside:
    """`first`: the unit, of which the second object uses local variables. `second`: what runs, and `runs` in it."""

    first: Unit
    second: Unit
    runs: tuple[Run, ...]


def second_object(
    first: Unit,
    is_new: Flags,
    plain: Collection[int],
    mixed: Sequence[Run],
    graph: LinkGraph,
    image: LoadedImage,
    sources: Sources,
) -> Beside:
    """`first`: the unit as it is selected; `is_new`: of each of its blocks; `plain`: see `Sources`; `mixed`: what of it
    cannot be run as it is. `graph`: the second object, with its `sources`. Errors: `Inseparable`."""
    binder = _Binder(first, is_new, plain, graph, image)
    priorities = {run.priority for run in mixed}
    rows = [
        Run(int(graph.blocks.anchor[block]), (), priority(section))
        for block, section in entries(graph)
        if priority(section) in priorities and graph.block_name(block).startswith("_GLOBAL_")
    ]
    blocks = [int(graph.symbols.block[row.symbol]) for row in rows]
    apart = [block for block in blocks if all(binder.variables(block))]
    rows = [
        replace(row, variables=tuple(names))
        for row, block in zip(rows, blocks, strict=True)
        if (names := binder.fresh_names(block))
    ]
    wanted = [name for run in mixed for name in run.variables]
    if (graph.symbols.name.rows_of(wanted) < 0).any():
        raise Inseparable("the optimiser keeps it in another way")
    graph = separated(graph, apart, range(len(graph.blocks)), binder.is_new, sources)
    return binder.bound(graph, rows)


class _Binder:
    """What the symbols of the second object mean."""

    def __init__(
        self, first: Unit, is_new: Flags, plain: Collection[int], graph: LinkGraph, image: LoadedImage
    ) -> None:
        self.first, self.plain, self.graph, self.image = first, plain, graph, image
        self.meant = with_anchored_uses(graph)
        names = graph.symbols.name
        here = first.graph.symbols.name.rows_of(list(names))
        self.here = np.where(names.are_given(), here, -1)  # for each symbol that of the first object
        home = np.where(self.here >= 0, np.maximum(first.graph.symbols.block[self.here], UNDEFINED), UNDEFINED)
        carried = np.zeros(len(first.graph.blocks) + 1, dtype=np.bool_)
        carried[first.carried] = True
        self.is_brought = carried[home] & (home >= 0)
        new_there = np.append(is_new, False)[home] & self.is_brought
        self.is_new: Flags = new_there[graph.blocks.anchor]

    def fresh_names(self, block: int) -> list[str]:
        fresh, _ = self.variables(block)
        return [self.graph.block_name(home) for home in fresh]

    def variables(self, block: int) -> tuple[list[int], list[int]]:
        """New ones, and those that exist, which the function in this block initialises."""
        return variables_of(self.meant, with_initialisers(self.graph, block), self.is_new)

    def bound(self, graph: LinkGraph, rows: Sequence[Run]) -> Beside:
        """The units, with `graph` for the second one."""
        symbols, blocks = graph.symbols, graph.blocks
        address = np.full(len(symbols), UNBOUND, dtype=np.int64)
        links = unwind_links(graph)
        carried: set[int] = set()
        shared: dict[int, int] = {}
        waiting = [int(symbols.block[row.symbol]) for row in rows]
        while waiting:
            block = waiting.pop()
            if block in carried:
                continue
            carried.add(block)
            for symbol in self._targets(graph, block, links.symbol[links.block == block].tolist()):
                target = int(symbols.block[symbol])
                if target < 0:
                    continue
                self._require_alike(symbol, target)
                place = self._place(symbol, target)
                if place != UNBOUND:
                    address[symbol] = place
                elif self._is_of_first(symbol, target):
                    if symbols.binding[symbol] == Binding.LOCAL:
                        shared[symbol] = int(self.here[symbol])
                elif blocks.kind[target] in _WRITABLE:
                    raise Inseparable(f"the optimiser left nothing of '{graph.block_name(target)}', which it needs")
                else:
                    waiting.append(target)
        first, graph = self._share(shared, graph)
        second = Unit(
            self.first.name + SUFFIX,
            graph,
            np.array(sorted(carried), dtype=np.int32),
            address,
            np.full(len(symbols), UNBOUND, dtype=np.int64),
            image=self.first.image,
            straight=self.first.straight,
        )
        return Beside(first, second, tuple(rows))

    @staticmethod
    def _targets(graph: LinkGraph, block: int, links: Sequence[int]) -> Iterator[int]:
        yield from np.unique(graph.edges.target[graph.edges_of(block)]).tolist()
        yield from links

    def _place(self, symbol: int, target: int) -> int:
        """The load address of what runs under this name, UNBOUND for what the second object has for itself or the
        patch brings."""
        name = self.graph.symbols.name[symbol]
        if not name or _OWN.match(name) or bool(self.graph.blocks.mergeable[target]):
            return UNBOUND
        here = int(self.here[symbol])
        if here >= 0 and self.first.address[here] != UNBOUND:
            return int(self.first.address[here])
        if here >= 0 and self.first.graph.symbols.block[here] >= 0:
            return UNBOUND
        if self.graph.symbols.binding[symbol] == Binding.LOCAL:
            return UNBOUND
        table = self.image.symbols
        rows = [row for row in table.by_name.get(name, ()) if table.binding[row] != Binding.LOCAL]
        return int(table.address[rows[0]]) if len(rows) == 1 else UNBOUND

    def _require_alike(self, symbol: int, target: int) -> None:
        """Errors: `Inseparable` for a local variable that the optimiser may keep in another way."""
        here, theirs = int(self.here[symbol]), self.first.graph
        home = int(theirs.symbols.block[here]) if here >= 0 else -1
        if home < 0 or self.graph.blocks.kind[target] not in _WRITABLE:
            return
        if theirs.symbols.binding[here] != Binding.LOCAL or self.graph.block_name(target).startswith(GUARD):
            return
        sizes = int(theirs.blocks.size[home]), int(self.graph.blocks.size[target])
        if sizes[0] != sizes[1] or (sizes[0] == 1 and home not in self.plain):
            raise Inseparable(f"the optimiser keeps '{self.graph.block_name(target)}' in another way")

    def _is_of_first(self, symbol: int, target: int) -> bool:
        """Whether the first object's definition, which the patch brings, is meant: of a variable, or of what other
        objects can see as well. Of a local function a copy is as good."""
        if not self.is_brought[symbol] or _OWN.match(self.graph.symbols.name[symbol]):
            return False
        is_local = self.graph.symbols.binding[symbol] == Binding.LOCAL
        return bool(self.graph.blocks.kind[target] in _WRITABLE or not is_local)

    def _share(self, shared: dict[int, int], graph: LinkGraph) -> tuple[Unit, LinkGraph]:
        """Local variables of the first object get names that the second may use."""
        theirs, ours = self.first.graph, list(shared)
        wanted = np.array([shared[row] for row in ours], dtype=np.int64)
        names = [f"{theirs.symbols.name[row]}{_MARK}" for row in wanted.tolist()]
        symbols, mine = theirs.symbols, graph.symbols
        binding, visibility = symbols.binding.copy(), symbols.visibility.copy()
        binding[wanted], visibility[wanted] = Binding.GLOBAL, Visibility.HIDDEN
        block, other = mine.block.copy(), mine.binding.copy()
        rows = np.array(ours, dtype=np.int64)
        block[rows], other[rows] = UNDEFINED, Binding.GLOBAL
        first = replace(
            theirs,
            symbols=replace(
                symbols, name=symbols.name.with_names(wanted, names), binding=binding, visibility=visibility
            ),
        )
        second = replace(
            graph, symbols=replace(mine, name=mine.name.with_names(rows, names), block=block, binding=other)
        )
        return replace(self.first, graph=first), second
