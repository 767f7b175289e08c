"""Which unit brings a definition that several edited units have: the one running copy is replaced once.

An edit of a header is seen by every unit that includes it, and each of them has its own new copy of an inline function
or of an instance of a template. All are the same by the language (C++17, [basic.def.odr]), and a linker takes the
first. So does this: among the units whose old copy is the one in memory, the first in the order of the link. Where
the compiler was not to optimise, copies that differ come from source that differs, and that is refused: which of them
is meant is not known. An optimising compiler may make different code of one source, as the rest of a unit has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipbp.errors import Refusal
from ipbp.graph.linkonce import is_linkonce
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.compare import Comparison
from ipbp.stages.name_numbers import base_name
from ipbp.stages.select import OldSide, Selection
from ipbp.stages.unwind import unwind_links

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Claim:
    """A unit as far as this matters. `rank`: its place in the order of the link. `is_optimised`: its compiler was
    asked to optimise, or it is not known."""

    old: OldSide
    comparison: Comparison
    selection: Selection
    rank: int
    is_optimised: bool


@dataclass(frozen=True, slots=True)
class OneCopy:
    """`elsewhere`: for each unit the names that another one brings."""

    elsewhere: tuple[frozenset[str], ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]


def one_copy(claims: Sequence[Claim]) -> OneCopy:
    """Who brings what, for the units of one image. Refusals: `copies-differ`."""
    holders: dict[str, dict[int, int]] = {}
    for row, claim in enumerate(claims):
        for name, block in _linkonce(claim).items():
            holders.setdefault(name, {})[row] = block
    elsewhere: list[set[str]] = [set() for _ in claims]
    refusals: list[Refusal] = []
    different: dict[str, tuple[str, str]] = {}
    content = [_Content(claim.selection.unit.graph) for claim in claims]
    for name, blocks in holders.items():
        if len(blocks) < 2:
            continue
        owner = min(blocks, key=lambda row: (not _runs(claims[row], blocks[row]), claims[row].rank, row))
        for row in blocks.keys() - {owner}:
            elsewhere[row].add(name)
        other = next((row for row in blocks if content[row].of(blocks[row]) != content[owner].of(blocks[owner])), None)
        if other is not None:
            pair = claims[owner].selection.unit.name, claims[other].selection.unit.name
            if claims[owner].is_optimised or claims[other].is_optimised:
                different[name] = pair
            else:
                refusals.append(_differ(name, *pair))
    return OneCopy(tuple(map(frozenset, elsewhere)), tuple(refusals), tuple(_notes(different)))


def _linkonce(claim: Claim) -> dict[str, int]:
    """What the unit would bring that others may bring as well, by name: the block of each."""
    graph = claim.selection.unit.graph
    shared = is_linkonce(graph)
    blocks = (*(row.block for row in claim.selection.replaced), *claim.selection.added)
    anchors = {int(graph.blocks.anchor[block]): int(block) for block in blocks}
    return {graph.symbols.name[anchor]: block for anchor, block in anchors.items() if shared[anchor]}


def _runs(claim: Claim, block: int) -> bool:
    """Whether the unit's old copy of this is the one in memory."""
    before = int(claim.comparison.old_block[block])
    return before >= 0 and bool(claim.old.proved[before])


class _Content:
    """What code and data say, whatever unit they are in: bytes, and where each fixup leads."""

    def __init__(self, graph: LinkGraph) -> None:
        self.graph = graph
        self._links: dict[int, list[int]] | None = None

    def of(self, block: int, depth: int = 0) -> object:
        graph, edges = self.graph, self.graph.edges
        rows = graph.edges_of(block)
        led = zip(
            edges.offset[rows].tolist(),
            edges.kind[rows].tolist(),
            edges.addend[rows].tolist(),
            [self._target(symbol, block, depth) for symbol in edges.target[rows].tolist()],
            strict=True,
        )
        tables = [self._target(symbol, block, depth) for symbol in self._unwind_links().get(block, ())]
        return bytes(graph.content(block)), int(graph.blocks.size[block]), tuple(led), tuple(tables)

    def _target(self, symbol: int, block: int, depth: int) -> object:
        graph = self.graph
        name, home = graph.symbols.name[symbol], int(graph.symbols.block[symbol])
        offset = int(graph.symbols.offset[symbol])
        if name and not (home >= 0 and graph.blocks.mergeable[home]):
            return base_name(name), offset
        if home < 0 or home == block or depth > _SHOWN:
            return "", offset
        return self.of(home, depth + 1), offset

    def _unwind_links(self) -> dict[int, list[int]]:
        if self._links is None:
            links = unwind_links(self.graph)
            self._links = {}
            for block, symbol in zip(links.block.tolist(), links.symbol.tolist(), strict=True):
                if self.graph.blocks.kind[block] == BlockKind.CODE:
                    self._links.setdefault(block, []).append(symbol)
        return self._links


def _notes(different: dict[str, tuple[str, str]]) -> list[str]:
    notes = [
        f"the optimised code of '{name}' is not the same in {first} and {second}; that of {first} is used"
        for name, (first, second) in list(different.items())[:_SHOWN]
    ]
    more = len(different) - _SHOWN
    return [*notes, f"so it is with {more} other functions"] if more > 0 else notes


def _differ(name: str, first: str, second: str) -> Refusal:
    return Refusal(
        "copies-differ",
        f"'{name}' became one thing in {first} and another in {second}, and the program has one copy of it",
        "Look for a macro or an option that the two files do not share, and make both agree.",
        name,
        first,
    )
