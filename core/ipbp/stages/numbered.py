"""Which numbered static variable or function of the new object is which of the old one.

Such a name says nothing: the numbers move when an edit adds or removes another one. So a member of a group (local
symbols of one base name) is paired by who refers to it: the references of each function are aligned with those of its
counterpart, everything else that the function refers to serving as landmarks. Each aligned reference is a vote.
Nearly all functions have the same references before and after; those are done at once, as columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

import numpy as np

from ipbp.graph.columns import I32, I64, Flags
from ipbp.graph.model import Binding, BlockKind, LinkGraph
from ipbp.graph.rows import distinct, is_one_of, ragged
from ipbp.stages.anchors import with_anchored_uses
from ipbp.stages.branches import with_local_branches
from ipbp.stages.identity import READ_ONLY
from ipbp.stages.name_numbers import NameNumbers
from ipbp.stages.referrers import Referrers, reference_marks

UNPAIRED = -1
_Sequence = Sequence[tuple[int, int]]
"""(mark, member) of each reference (`stages.referrers`)."""
_Ranks = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Members:
    """The members of all groups on one side: `row` of the symbol, `group`; and the group of each symbol or -1."""

    row: I64
    group: I64
    of_symbol: I64


def pair_numbered(
    old: LinkGraph, new: LinkGraph, names: NameNumbers, symbol: I32, known: Mapping[int, int]
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Pair the members of each group in the column `symbol`; the variables that could be any of several are returned.
    `known`: new members with the old ones that they are, UNPAIRED for none.

    Groups of stateful or callable symbols only; read-only ones are paired by content.
    """
    before, after = _members(old, new, names)
    symbol[after.row] = UNPAIRED
    if known:
        symbol[list(known)] = list(known.values())
    if len(after.row) == 0:
        return ()
    if known:
        before, after = _without(before, known.values()), _without(after, known)
    one, other = with_anchored_uses(old), with_anchored_uses(new)
    if _has_clones(before) or _has_clones(after):
        # Without -ffunction-sections calls between local functions are not among the fixups. They are what tells one
        # clone of a function from another.
        one, other = with_local_branches(one), with_local_branches(other)
    old_view, new_view = Referrers(one, before.row), Referrers(other, after.row)
    pairs, votes = _votes(old_view, new_view, names)
    valid = before.of_symbol[pairs[:, 0]] == after.of_symbol[pairs[:, 1]]
    pairs, votes = pairs[valid], votes[valid]
    certain = ~_exchanged(pairs, before, after, old_view, new_view)
    pairs, votes = pairs[certain], votes[certain]

    # Where both have votes for each other alone there is nothing to weigh.
    alone = np.bincount(pairs[:, 0], minlength=len(old.symbols))[pairs[:, 0]] == 1
    alone &= np.bincount(pairs[:, 1], minlength=len(new.symbols))[pairs[:, 1]] == 1
    symbol[pairs[alone, 1]] = pairs[alone, 0]
    settled = np.zeros(len(old.symbols), dtype=np.bool_)
    settled[pairs[alone, 0]] = True
    weighed: dict[int, dict[int, int]] = {}
    for (o, n), count in zip(pairs[~alone].tolist(), votes[~alone].tolist(), strict=True):
        weighed.setdefault(n, {})[o] = count

    open_new = _by_group(after, symbol[after.row] == UNPAIRED)
    open_old = _by_group(before, ~settled[before.row])
    ambiguous: list[tuple[int, tuple[int, ...]]] = []
    for group, rows in sorted(open_new.items(), key=lambda item: new.symbols.name[item[1][0]]):
        is_code = new.blocks.kind[new.symbols.block[rows[0]]] == BlockKind.CODE
        members = _Group(bool(is_code), open_old.get(group, ()), rows)
        ambiguous += _settle(members, old, new, weighed, old_view, new_view, symbol)
    return tuple(ambiguous)


def _without(members: _Members, rows: Iterable[int]) -> _Members:
    of_symbol = members.of_symbol.copy()
    of_symbol[[row for row in rows if row >= 0]] = -1
    stay = of_symbol[members.row] >= 0
    return _Members(members.row[stay], members.group[stay], of_symbol)


def _has_clones(members: _Members) -> bool:
    """Whether a group has several functions; the keys of such groups are odd."""
    _, count = np.unique(members.group[members.group % 2 == 1], return_counts=True)
    return bool((count > 1).any())


def _members(old: LinkGraph, new: LinkGraph, names: NameNumbers) -> tuple[_Members, _Members]:
    """The symbols of all groups that have a numbered member on either side, and members on both."""
    keys, rows, wanted = [], [], np.zeros(2 * names.limit, dtype=np.bool_)
    for graph, base, numbered in (
        (old, names.old_base, names.old_is_numbered),
        (new, names.new_base, names.new_is_numbered),
    ):
        row, is_code = _definitions(graph)
        keys.append(base[row] * 2 + is_code)
        rows.append(row)
        wanted[keys[-1][numbered[row]]] = True
    for key in keys:
        present = np.zeros(len(wanted), dtype=np.bool_)
        present[key] = True
        wanted &= present
    sides = []
    for graph, row, key in zip((old, new), rows, keys, strict=True):
        row, key = row[wanted[key]], key[wanted[key]]
        of_symbol = np.full(len(graph.symbols), -1, dtype=np.int64)
        of_symbol[row] = key
        sides.append(_Members(row, key, of_symbol))
    return sides[0], sides[1]


def _definitions(graph: LinkGraph) -> tuple[I64, Flags]:
    """Local symbols and variables of C++ functions outside of read-only data, and whether they are code. Guards follow
    what they guard (`stages.discriminators`)."""
    home, name = graph.symbols.block, graph.symbols.name
    is_member = (graph.symbols.binding == Binding.LOCAL) | name.start_with(b"_ZZ")
    rows = np.flatnonzero(is_member & ~name.start_with(b"_ZGVZ") & (home >= 0))
    kinds = graph.blocks.kind[home[rows]]
    wanted = ~is_one_of(kinds, READ_ONLY)
    return rows[wanted], kinds[wanted] == BlockKind.CODE


def _exchanged(pairs: I64, before: _Members, after: _Members, old: Referrers, new: Referrers) -> Flags:
    """Which votes may be for another variable: where an edit inlines one function in the place of another, the variable
    of the one stands where that of the other stood, and nothing speaks for the two that are left over."""
    result = np.zeros(len(pairs), dtype=np.bool_)
    silent = [
        _by_group(members, ~np.isin(members.row, pairs[:, column]) & (members.group % 2 == 0))
        for column, members in enumerate((before, after))
    ]
    groups = silent[0].keys() & silent[1].keys()
    doubtful = np.flatnonzero(np.isin(before.of_symbol[pairs[:, 0]], list(groups))) if groups else ()
    for row in map(int, doubtful):
        o, n = pairs[row].tolist()
        left_old, left_new = (side[int(before.of_symbol[o])] for side in silent)
        result[row] = any(_may_be(other, n, old, new) for other in left_old) and any(
            _may_be(o, other, old, new) for other in left_new
        )
    return result


def _may_be(o: int, n: int, old: Referrers, new: Referrers) -> bool:
    return _fits(old.graph, o, new.graph, n) and old.shares_users(o, new, n)


def _by_group(members: _Members, chosen: Flags) -> dict[int, tuple[int, ...]]:
    found: dict[int, list[int]] = {}
    for row, group in zip(members.row[chosen].tolist(), members.group[chosen].tolist(), strict=True):
        found.setdefault(group, []).append(row)
    return {group: tuple(rows) for group, rows in found.items()}


def _votes(old: Referrers, new: Referrers, names: NameNumbers) -> tuple[I64, I64]:
    """Pairs (old, new) of members, and how often an aligned reference of some function says that they are the same.

    Aligned from both ends: where there are two ways to align, the two ends choose differently and the votes tell.
    """
    one, other = reference_marks(old, new, names)
    _, at_old, at_new = np.intersect1d(one.function, other.function, assume_unique=True, return_indices=True)
    count = np.diff(one.first)[at_old]
    alike = count == np.diff(other.first)[at_new]
    owner, within = ragged(np.where(alike, count, 0))
    left, right = one.first[at_old][owner] + within, other.first[at_new][owner] + within
    alike[owner[one.mark[left] != other.mark[right]]] = False
    both = alike[owner] & (one.member[left] >= 0) & (other.member[right] >= 0)
    voted = [np.repeat(np.stack([one.member[left[both]], other.member[right[both]]], axis=1), 2, axis=0)]
    for index in np.flatnonzero(~alike).tolist():
        before, after = one.sequence(int(at_old[index])), other.sequence(int(at_new[index]))
        ranks = _ranks(before, old.graph), _ranks(after, new.graph)
        found = [*_aligned(before, after, *ranks), *_aligned(before[::-1], after[::-1], ranks[0][::-1], ranks[1][::-1])]
        voted.append(np.array([pair for pair in found if min(pair) >= 0], dtype=np.int64).reshape(-1, 2))
    keys = np.concatenate(voted) @ np.array([1 << 32, 1], dtype=np.int64)
    different = distinct(keys)
    votes = np.bincount(np.searchsorted(different, keys), minlength=len(different))
    return np.stack([different >> 32, different & 0xFFFFFFFF], axis=1), votes


def _aligned(old: _Sequence, new: _Sequence, old_rank: _Ranks, new_rank: _Ranks) -> Iterator[tuple[int, int]]:
    """Where members follow each other with nothing between, an optimiser may have put them into any order. There as
    many must be on the other side, and their numbers in the same order."""
    matcher = SequenceMatcher(None, [mark for mark, _ in old], [mark for mark, _ in new], autojunk=False)
    for first, second, length in matcher.get_matching_blocks():
        for step in range(length):
            if old_rank[first + step] == new_rank[second + step]:
                yield old[first + step][1], new[second + step][1]


def _ranks(sequence: _Sequence, graph: LinkGraph) -> _Ranks:
    """For each reference how many members there are among those of its mark around it, and which of them it is by its
    number."""
    found: list[tuple[int, int]] = []
    for _mark, group in groupby(sequence, key=lambda row: row[0]):
        members = [member for _, member in group]
        named = {graph.symbols.name[member]: member for member in members if member >= 0}
        place = {named[name]: rank for rank, name in enumerate(sorted(named, key=lambda name: (len(name), name)))}
        found += [(len(place), place.get(member, 0)) for member in members]
    return found


@dataclass(frozen=True, slots=True)
class _Group:
    """The members of one group that are not settled yet."""

    is_code: bool
    old: tuple[int, ...]
    new: tuple[int, ...]


def _settle(
    group: _Group,
    old: LinkGraph,
    new: LinkGraph,
    votes: Mapping[int, Mapping[int, int]],
    old_view: Referrers,
    new_view: Referrers,
    symbol: I32,
) -> Iterable[tuple[int, tuple[int, ...]]]:
    """Pairs of one group. Votes first; then callers, for what was inlined on one side only. A function that stays
    without a counterpart is new, which is always safe; a variable is ambiguous while an old one may still be it."""
    candidates = {n: _voted(n, old, new, votes.get(n, {})) for n in group.new}
    wooers: dict[int, set[int]] = {}
    for n, found in candidates.items():
        for o in found:
            wooers.setdefault(o, set()).add(n)
    free_old = set(group.old)
    open_new = []
    for row, found in candidates.items():
        if len(found) == 1 and wooers[found[0]] == {row}:
            symbol[row] = found[0]
            free_old.discard(found[0])
        else:
            open_new.append(row)
    if group.is_code and len(free_old) == len(open_new) == 1 and not candidates[open_new[0]]:
        symbol[open_new[0]] = free_old.pop()
        return []
    result = []
    for row in open_new:
        found = candidates[row] or tuple(o for o in sorted(free_old) if _may_be(o, row, old_view, new_view))
        rivals = {n for n in open_new for o in found if n != row and _could_be(o, n, candidates, old_view, new_view)}
        if len(found) == 1 and not rivals:
            symbol[row] = found[0]
        elif found and not group.is_code:
            result.append((row, found))
    return result


def _voted(row: int, old: LinkGraph, new: LinkGraph, counts: Mapping[int, int]) -> tuple[int, ...]:
    """The old members that references speak for, at least half as many as for the best; of several those that fit."""
    best = max(counts.values(), default=0)
    found = tuple(o for o, count in sorted(counts.items()) if count * 2 >= best)
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
