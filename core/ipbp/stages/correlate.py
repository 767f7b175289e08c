"""Which symbol of the new object is which symbol of the old one.

Names pair what the programmer named. Compilers number what has no name of its own in the object file (gcc calls
the static variable `count` of a function `count.0`, its clones `f.constprop.0`), and the numbers move when an edit
adds or removes another one. Such a variable is state that must not be mixed up, so it is paired by who refers to
it (`stages.numbered`). Where this does not decide, the result says so and nothing is guessed. Unnamed and read-only
content is paired by content. All of it is columns: an object has a hundred thousand symbols.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ipbp.graph.columns import I32, I64, Flags
from ipbp.graph.model import UNDEFINED, Binding, LinkGraph
from ipbp.graph.rows import ByteRows, representatives
from ipbp.stages.discriminators import doubted, pair_guards, with_discriminators
from ipbp.stages.identity import Side, colours, has_content_identity, mask
from ipbp.stages.linkage import Declared, pair_other_linkage, pair_statics
from ipbp.stages.name_numbers import NameNumbers, base_name, name_numbers
from ipbp.stages.numbered import UNPAIRED, pair_numbered
from ipbp.stages.rust_pairs import NO_GROUP, RustPairs, pair_rust

__all__ = ["UNPAIRED", "Correlation", "correlate"]
_NONE: Mapping[str, str] = {}
_NO_PARTS: Mapping[int, int] = {}


def _unknown(_name: str) -> int:
    return -1


@dataclass(frozen=True, slots=True)
class Correlation:
    """`symbol`: for each new symbol the old one or UNPAIRED. `block`: for each new block the old one or UNPAIRED.

    `ambiguous`: new variables that may be any of several old ones, with those. `old_colour`, `new_colour`: the
    identity of content (`stages.identity`), for blocks that are not known by name. `old_masked`, `new_masked`: the
    masked bytes of each block of both sides, computed here once. `old_group`, `new_group`: for each block the first old
    block of its group of copies (`stages.rust_pairs`), or NO_GROUP.
    """

    symbol: I32
    block: I32
    ambiguous: tuple[tuple[int, tuple[int, ...]], ...]
    old_colour: I32
    new_colour: I32
    old_masked: ByteRows
    new_masked: ByteRows
    old_group: I64
    new_group: I64


def correlate(
    old: LinkGraph,
    new: LinkGraph,
    renewed: Collection[str] = (),
    successors: Mapping[str, str] = _NONE,
    parts: Mapping[int, int] = _NO_PARTS,
    declared: Declared = _unknown,
) -> Correlation:
    """The pairs of two graphs of one translation unit. `renewed`: names of new functions that are not the next
    version of what has their name in the old object. `successors`: name of a new function -> that of the old one that
    it is the next version of. `parts`: numbered symbols whose old one (UNPAIRED for none) is known otherwise.
    `declared`: see `stages.linkage`."""
    symbol = np.full(len(new.symbols), UNPAIRED, dtype=np.int32)
    names = name_numbers(old.symbols.name, new.symbols.name)
    rust = pair_rust(old, new, names, symbol)
    names = replace(
        names,
        old_is_numbered=names.old_is_numbered & ~rust.old_is_rust,
        new_is_numbered=names.new_is_numbered & ~rust.new_is_rust,
    )
    old_content = has_content_identity(old, names.old_is_numbered)
    new_content = has_content_identity(new, names.new_is_numbered)
    _pair_names(old, new, names, ~rust.new_is_rust, symbol)
    pair_other_linkage(old, new, symbol)
    if renewed:
        rows = [row for row, name in enumerate(new.symbols.name) if name in renewed or base_name(name) in renewed]
        symbol[rows] = UNPAIRED
        rust.new_group[np.maximum(new.symbols.block[rows], 0)[new.symbols.block[rows] >= 0]] = NO_GROUP
    if successors:
        symbol[new.symbols.name.rows_of(list(successors))] = old.symbols.name.rows_of(list(successors.values()))
    doubtful = pair_statics(old, new, symbol, declared)
    by_name = symbol.copy()
    ambiguous = pair_numbered(old, new, with_discriminators(names, old, new), symbol, parts)
    ambiguous += doubted(old, new, by_name, symbol, ambiguous)
    pair_guards(old, new, symbol)
    ambiguous += tuple(pair for pair in doubtful if symbol[pair[0]] == UNPAIRED and pair[0] not in parts)
    _part_unlike(old, new, old_content, new_content, symbol)

    old_masked, new_masked = mask(old), mask(new)
    old_token = np.arange(len(old.symbols), dtype=np.int64)
    new_token = np.where(symbol >= 0, symbol, len(old.symbols) + np.arange(len(new.symbols)))
    _tie_copies(old, new, rust, old_token, new_token)
    old_colour, new_colour = colours(
        Side(old, old_masked, old_content, _anchor_tokens(old, old_token)),
        Side(new, new_masked, new_content, _paired_tokens(old, new, symbol, new_token)),
    )
    block = _pair_blocks(old, new, symbol, new_content)
    _pair_content(old, new, names, old_colour, new_colour, symbol, block)
    return Correlation(
        symbol, block, ambiguous, old_colour, new_colour, old_masked, new_masked, rust.old_group, rust.new_group
    )


def _tie_copies(old: LinkGraph, new: LinkGraph, rust: RustPairs, old_token: I64, new_token: I64) -> None:
    """All copies of a function mean the same to those who refer to them."""
    for graph, group, token in ((old, rust.old_group, old_token), (new, rust.new_group, new_token)):
        blocks = np.flatnonzero(group >= 0)
        token[graph.blocks.anchor[blocks]] = old.blocks.anchor[group[blocks]]


def _pair_names(old: LinkGraph, new: LinkGraph, names: NameNumbers, wanted: Flags, symbol: I32) -> None:
    """Fill in the pairs of names that no compiler numbers, for the new symbols that are `wanted`; the first definition
    is preferred to a reference."""
    row_of = np.full(names.limit, UNPAIRED, dtype=np.int32)
    rows = np.arange(len(old.symbols), dtype=np.int32)
    is_defined = old.symbols.block != UNDEFINED
    # Of several rows with one name the last one written stays.
    for some in (rows[~is_defined], rows[is_defined][::-1]):
        row_of[names.old_name[some]] = some
    given = new.symbols.name.are_given()
    plain = given & wanted & ~((new.symbols.binding == Binding.LOCAL) & names.new_is_numbered)
    symbol[plain] = row_of[names.new_name[plain]]
    _pair_copies(old, new, names, plain, symbol)


def _pair_copies(old: LinkGraph, new: LinkGraph, names: NameNumbers, plain: Flags, symbol: I32) -> None:
    """Of a local name that is defined several times in objects that were merged, the n-th is the n-th as before."""
    before = np.flatnonzero((old.symbols.binding == Binding.LOCAL) & (old.symbols.block >= 0))
    after = np.flatnonzero((new.symbols.binding == Binding.LOCAL) & (new.symbols.block >= 0) & plain)
    one, other = names.old_name[before], names.new_name[after]
    count = np.bincount(other, minlength=names.limit)
    several = (count > 1) & (np.bincount(one, minlength=names.limit) == count)
    one, before = one[several[one]], before[several[names.old_name[before]]]
    other, after = other[several[other]], after[several[names.new_name[after]]]
    symbol[after[np.argsort(other, kind="stable")]] = before[np.argsort(one, kind="stable")]


def _part_unlike(old: LinkGraph, new: LinkGraph, old_content: Flags, new_content: Flags, symbol: I32) -> None:
    """Take apart what has one name and is known by it on one side only: a constant that is in a mergeable section now,
    or was. A name in such a section says nothing: another constant of the function may have had it."""
    rows = np.flatnonzero((symbol >= 0) & (new.symbols.block >= 0))
    home = old.symbols.block[symbol[rows]]
    unlike = (home >= 0) & (old_content[np.maximum(home, 0)] != new_content[new.symbols.block[rows]])
    symbol[rows[unlike]] = UNPAIRED


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


def _pair_blocks(old: LinkGraph, new: LinkGraph, symbol: I32, new_content: Flags) -> I32:
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
    return block


def _pair_content(
    old: LinkGraph, new: LinkGraph, names: NameNumbers, old_colour: I32, new_colour: I32, symbol: I32, block: I32
) -> None:
    """Pair blocks of one colour, of one base name where there are several; their anchors go with them."""
    old_rows, rows = np.flatnonzero(old_colour >= 0), np.flatnonzero(new_colour >= 0)
    old_key, key = old_colour[old_rows].astype(np.int64), new_colour[rows].astype(np.int64)
    old_base, base = names.old_base[old.blocks.anchor[old_rows]], names.new_base[new.blocks.anchor[rows]]
    by_name = _first_equal(old_key * names.limit + old_base, key * names.limit + base)
    by_colour = _first_equal(old_key, key)
    found = np.where(by_name >= 0, by_name, by_colour)
    block[rows] = symbol[new.blocks.anchor[rows]] = UNPAIRED
    rows, partners = rows[found >= 0], old_rows[found[found >= 0]]
    block[rows], symbol[new.blocks.anchor[rows]] = partners, old.blocks.anchor[partners]


def _first_equal(known: I64, wanted: I64) -> I64:
    """For each wanted number the first place in `known` that has it, or -1."""
    number = representatives(np.concatenate([known, wanted]).view(np.uint64))
    place = np.full(len(number), -1, dtype=np.int64)
    place[number[: len(known)][::-1]] = np.arange(len(known))[::-1]
    return place[number[len(known) :]]
