"""Functions and variables of Rust, paired by their mangled names.

Where a name is there once before and once now that is all; whether the compiler made it local or promoted it is no
part of what it is. A function of which the codegen units of a crate have
copies makes a group, in which each may stand for each as far as callers are concerned; `stages.copy_pairs` pairs the
copies when it is known what else is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ipbp.graph.columns import I32, I64, Flags
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.name_numbers import NameNumbers
from ipbp.stages.rust_names import are_rust

NO_GROUP = -1


@dataclass(frozen=True, slots=True)
class RustPairs:
    """`old_is_rust`, `new_is_rust`: symbols that are judged here. `old_group`, `new_group`: for each block the first
    old block of its group, or NO_GROUP."""

    old_is_rust: Flags
    new_is_rust: Flags
    old_group: I64
    new_group: I64


def pair_rust(old: LinkGraph, new: LinkGraph, names: NameNumbers, symbol: I32) -> RustPairs:
    """Fill in the pairs in the column `symbol`; copies stay unpaired."""
    sides = [_definitions(graph) for graph in (old, new)]
    bases = [base[rows] for base, rows in zip((names.old_base, names.new_base), sides, strict=True)]
    count = [np.bincount(base, minlength=names.limit) for base in bases]
    symbol[sides[1]] = -1
    first = np.full(names.limit, -1, dtype=np.int64)
    first[bases[0][::-1]] = sides[0][::-1]
    alone = (count[0] == 1) & (count[1] == 1)
    rows = alone[bases[1]]
    symbol[sides[1][rows]] = first[bases[1][rows]]
    has_copies = (count[0] > 0) & (count[1] > 0) & ~alone
    groups = []
    for graph, rows, base in zip((old, new), sides, bases, strict=True):
        group = np.full(len(graph.blocks), NO_GROUP, dtype=np.int64)
        rows, base = rows[has_copies[base]], base[has_copies[base]]
        home = graph.symbols.block[rows]
        is_code = (graph.blocks.kind[home] == BlockKind.CODE) & (graph.blocks.anchor[home] == rows)
        group[home[is_code]] = old.symbols.block[first[base[is_code]]]
        groups.append(group)
    flags = []
    for graph, rows in zip((old, new), sides, strict=True):
        flags.append(np.zeros(len(graph.symbols), dtype=np.bool_))
        flags[-1][rows] = True
    return RustPairs(flags[0], flags[1], groups[0], groups[1])


def _definitions(graph: LinkGraph) -> I64:
    rows = np.flatnonzero(graph.symbols.block >= 0)
    found: I64 = rows[are_rust(graph.symbols.name.take(rows))]
    return found
