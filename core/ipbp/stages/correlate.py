"""Which symbol of the new object is which symbol of the old one.

Names pair what the programmer named. Compilers number what has no name of its own in the object file (gcc calls
the static variable `count` of a function `count.0`, its clones `f.constprop.0`), and the numbers move when an edit
adds or removes another one. Such a variable is state that must not be mixed up, so it is paired by who refers to
it: the references of each function are aligned with those of its counterpart, everything else that the function
refers to serving as landmarks. Where this does not decide, the result says so and nothing is guessed. Unnamed and
read-only content is paired by content.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import numpy.typing as npt

from ipbp.graph.model import I32, I64, UNDEFINED, Binding, BlockKind, LinkGraph
from ipbp.stages.identity import (
    READ_ONLY,
    MaskedBytes,
    Side,
    base_name,
    colours,
    has_content_identity,
    is_numbered,
    mask,
)
from ipbp.stages.referrers import Mark, Referrers

UNPAIRED = -1


@dataclass(frozen=True, slots=True)
class Correlation:
    """`symbol`: for each new symbol the old one or UNPAIRED. `block`: for each new block the old one or UNPAIRED.

    `ambiguous`: new variables that may be any of several old ones, with those. `old_colour`, `new_colour`: the
    identity of content (`stages.identity`), for blocks that are not known by name. `old_masked`, `new_masked`: the
    masked bytes of both sides, computed here once.
    """

    symbol: I32
    block: I32
    ambiguous: tuple[tuple[int, tuple[int, ...]], ...]
    old_colour: I32
    new_colour: I32
    old_masked: MaskedBytes
    new_masked: MaskedBytes


def correlate(old: LinkGraph, new: LinkGraph) -> Correlation:
    """The pairs of two graphs of one translation unit."""
    old_content, new_content = has_content_identity(old), has_content_identity(new)
    symbol = np.full(len(new.symbols), UNPAIRED, dtype=np.int32)
    _pair_names(old, new, symbol)
    groups = _numbered_groups(old, new)
    ambiguous = _pair_numbered(old, new, groups, symbol)

    old_masked, new_masked = mask(old), mask(new)
    old_token = np.arange(len(old.symbols), dtype=np.int64)
    new_token = np.where(symbol >= 0, symbol, len(old.symbols) + np.arange(len(new.symbols)))
    old_colour, new_colour = colours(
        Side(old, old_masked, old_content, _anchor_tokens(old, old_token)),
        Side(new, new_masked, new_content, _paired_tokens(old, new, symbol, new_token)),
    )
    block = _pair_blocks(old, new, symbol, new_content, old_content)
    _pair_content(old, new, old_colour, new_colour, symbol, block)
    return Correlation(symbol, block, ambiguous, old_colour, new_colour, old_masked, new_masked)


def _pair_names(old: LinkGraph, new: LinkGraph, symbol: I32) -> None:
    """Fill in the pairs of names that no compiler numbers; a definition is preferred to a reference."""
    table: dict[str, int] = {}
    homes = old.symbols.block.tolist()
    for row, name in enumerate(old.symbols.name):
        if name and (name not in table or homes[table[name]] == UNDEFINED):
            table[name] = row
    new_bindings = new.symbols.binding.tolist()
    for row, name in enumerate(new.symbols.name):
        if name and name in table and not (new_bindings[row] == Binding.LOCAL and is_numbered(name)):
            symbol[row] = table[name]


@dataclass(frozen=True, slots=True)
class _Group:
    """Local symbols of one base name on both sides, some of them numbered."""

    is_code: bool
    old: tuple[int, ...]
    new: tuple[int, ...]


def _numbered_groups(old: LinkGraph, new: LinkGraph) -> list[_Group]:
    """Groups of stateful or callable numbered symbols; read-only ones are paired by content."""
    local = [_local_definitions(graph) for graph in (old, new)]
    numbered = {
        (base_name(name), is_code)
        for graph, rows in zip((old, new), local, strict=True)
        for row, is_code in rows
        if is_numbered(name := graph.symbols.name[row])
    }
    before, after = (_rows_by_base(graph, rows, numbered) for graph, rows in zip((old, new), local, strict=True))
    return [_Group(key[1], tuple(before[key]), tuple(rows)) for key, rows in sorted(after.items()) if key in before]


def _local_definitions(graph: LinkGraph) -> list[tuple[int, bool]]:
    """Local symbols outside of read-only data, and whether they are code."""
    home = graph.symbols.block
    rows = np.flatnonzero((graph.symbols.binding == Binding.LOCAL) & (home >= 0))
    kinds = graph.blocks.kind[home[rows]]
    wanted = ~np.isin(kinds, READ_ONLY)
    return list(zip(rows[wanted].tolist(), (kinds[wanted] == BlockKind.CODE).tolist(), strict=True))


def _rows_by_base(
    graph: LinkGraph, rows: list[tuple[int, bool]], wanted: Collection[tuple[str, bool]]
) -> dict[tuple[str, bool], list[int]]:
    names = graph.symbols.name
    found: dict[tuple[str, bool], list[int]] = {}
    for row, is_code in rows if wanted else ():
        key = (base_name(names[row]), is_code)
        if key in wanted:
            found.setdefault(key, []).append(row)
    return found


def _pair_numbered(
    old: LinkGraph, new: LinkGraph, groups: list[_Group], symbol: I32
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Pair the members of each group; the variables that could be any of several are returned."""
    if not groups:
        return ()
    for group in groups:
        symbol[list(group.new)] = UNPAIRED
    old_members = {row for group in groups for row in group.old}
    new_members = {row for group in groups for row in group.new}
    old_view, new_view = Referrers(old, old_members), Referrers(new, new_members)
    votes = _votes(old_view, new_view)
    ambiguous: list[tuple[int, tuple[int, ...]]] = []
    for group in groups:
        ambiguous += _settle(group, old, new, votes, old_view, new_view, symbol)
    return tuple(ambiguous)


def _votes(old: Referrers, new: Referrers) -> dict[tuple[int, int], int]:
    """How often an aligned reference of some function says that this old and this new symbol are the same.

    Aligned from both ends: where there are two ways to align, the two ends choose differently and the votes tell.
    """
    votes: dict[tuple[int, int], int] = {}
    for name, sequence in new.sequences().items():
        before = old.sequences().get(name, [])
        for pair in (*_aligned(before, sequence), *_aligned(before[::-1], sequence[::-1])):
            if min(pair) >= 0:
                votes[pair] = votes.get(pair, 0) + 1
    return votes


def _aligned(old: Sequence[tuple[Mark, int]], new: Sequence[tuple[Mark, int]]) -> Iterator[tuple[int, int]]:
    matcher = SequenceMatcher(None, [mark for mark, _ in old], [mark for mark, _ in new], autojunk=False)
    for first, second, length in matcher.get_matching_blocks():
        for step in range(length):
            yield old[first + step][1], new[second + step][1]


def _settle(
    group: _Group,
    old: LinkGraph,
    new: LinkGraph,
    votes: Mapping[tuple[int, int], int],
    old_view: Referrers,
    new_view: Referrers,
    symbol: I32,
) -> Iterable[tuple[int, tuple[int, ...]]]:
    """Pairs of one group. Votes first; then callers, for what was inlined on one side only. A function that stays
    without a counterpart is new, which is always safe; a variable is ambiguous while an old one may still be it."""
    candidates = {n: _voted(group, n, old, new, votes) for n in group.new}
    free_old = set(group.old)
    open_new = []
    for row, found in candidates.items():
        rivals = {n for n in group.new if set(found) & set(candidates[n])}
        if len(found) == 1 and rivals == {row}:
            symbol[row] = found[0]
            free_old.discard(found[0])
        else:
            open_new.append(row)
    if group.is_code and len(free_old) == len(open_new) == 1 and not candidates[open_new[0]]:
        symbol[open_new[0]] = free_old.pop()
        return []
    result = []
    for row in open_new:
        found = candidates[row] or tuple(
            o for o in sorted(free_old) if _fits(old, o, new, row) and old_view.shares_users(o, new_view, row)
        )
        rivals = {n for n in open_new for o in found if n != row and _could_be(o, n, candidates, old_view, new_view)}
        if len(found) == 1 and not rivals:
            symbol[row] = found[0]
        elif found and not group.is_code:
            result.append((row, found))
    return result


def _voted(
    group: _Group, row: int, old: LinkGraph, new: LinkGraph, votes: Mapping[tuple[int, int], int]
) -> tuple[int, ...]:
    """The old members that references speak for, at least half as many as for the best; of several those that fit."""
    counts = {o: votes.get((o, row), 0) for o in group.old}
    best = max(counts.values())
    found = tuple(o for o, count in counts.items() if count and count * 2 >= best)
    return found if len(found) == 1 else tuple(o for o in found if _fits(old, o, new, row))


def _could_be(o: int, n: int, candidates: Mapping[int, tuple[int, ...]], old: Referrers, new: Referrers) -> bool:
    return o in candidates[n] or (not candidates[n] and old.shares_users(o, new, n))


def _fits(old: LinkGraph, o: int, new: LinkGraph, n: int) -> bool:
    """Whether size and kind allow this pair: zeroed and initialised variables are one kind."""
    return bool(
        old.symbols.size[o] == new.symbols.size[n]
        and _kind_class(old, int(old.symbols.block[o])) == _kind_class(new, int(new.symbols.block[n]))
    )


def _kind_class(graph: LinkGraph, block: int) -> BlockKind:
    kind = BlockKind(graph.blocks.kind[block])
    return {BlockKind.BSS: BlockKind.DATA, BlockKind.TLS_BSS: BlockKind.TLS_DATA}.get(kind, kind)


def _anchor_tokens(graph: LinkGraph, token: I64) -> I64:
    """Every symbol of a block speaks for the block's anchor; the offset in the block is compared beside it."""
    home = graph.symbols.block
    placed = home >= 0
    result = token.copy()
    result[placed] = token[graph.blocks.anchor[home[placed]]]
    return result


def _paired_tokens(old: LinkGraph, new: LinkGraph, symbol: I32, token: I64) -> I64:
    mine = _anchor_tokens(new, token)
    paired = (mine < len(old.symbols)) & (mine >= 0)
    result = mine.copy()
    result[paired] = _anchor_tokens(old, np.arange(len(old.symbols), dtype=np.int64))[mine[paired]]
    return result


def _pair_blocks(
    old: LinkGraph, new: LinkGraph, symbol: I32, new_content: npt.NDArray[np.bool_], old_content: npt.NDArray[np.bool_]
) -> I32:
    """Blocks follow their anchors; where an anchor has no counterpart, any other name at the block's start does."""
    block = np.full(len(new.blocks), UNPAIRED, dtype=np.int32)
    home, offset = new.symbols.block, new.symbols.offset
    at_start = np.flatnonzero((home >= 0) & (offset == 0) & (symbol >= 0))
    target = old.symbols.block[symbol[at_start]]
    usable = (target >= 0) & (old.symbols.offset[symbol[at_start]] == 0)
    at_start, target = at_start[usable], target[usable]
    block[home[at_start]] = target
    is_anchor = new.blocks.anchor[home[at_start]] == at_start
    block[home[at_start[is_anchor]]] = target[is_anchor]
    block[new_content] = UNPAIRED
    paired = block >= 0
    wrong = paired.copy()
    wrong[paired] = old_content[block[paired]]
    block[wrong] = UNPAIRED
    return block


def _pair_content(old: LinkGraph, new: LinkGraph, old_colour: I32, new_colour: I32, symbol: I32, block: I32) -> None:
    """Pair blocks of one colour, of one base name where there are several; their anchors go with them."""
    by_name: dict[tuple[int, str], int] = {}
    by_colour: dict[int, int] = {}
    old_anchors, new_anchors = old.blocks.anchor.tolist(), new.blocks.anchor.tolist()
    old_names, new_names = old.symbols.name, new.symbols.name
    rows = np.flatnonzero(old_colour >= 0)[::-1]
    for row, colour in zip(rows.tolist(), old_colour[rows].tolist(), strict=True):
        by_name[colour, base_name(old_names[old_anchors[row]])] = row
        by_colour[colour] = row
    rows = np.flatnonzero(new_colour >= 0)
    found = [
        by_name.get((colour, base_name(new_names[new_anchors[row]])), by_colour.get(colour, UNPAIRED))
        for row, colour in zip(rows.tolist(), new_colour[rows].tolist(), strict=True)
    ]
    block[rows] = found
    symbol[new.blocks.anchor[rows]] = np.where(block[rows] >= 0, old.blocks.anchor[block[rows]], UNPAIRED)
