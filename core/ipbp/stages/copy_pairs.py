"""Which copy of a function is which, where the codegen units of a crate have several.

A copy that is the same code as an old one is that one: its callers, its address and whoever stored that go on as they
were. What is left over has changed, or is optimised in another way now; `stages.copies` says where it leads.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ipbp.graph.columns import I64
from ipbp.graph.model import LinkGraph
from ipbp.graph.rows import ragged
from ipbp.stages.compare import alike
from ipbp.stages.correlate import Correlation
from ipbp.stages.meaning import meanings
from ipbp.stages.rust_pairs import NO_GROUP


def pair_copies(old: LinkGraph, new: LinkGraph, correlation: Correlation) -> Correlation:
    """The correlation with a pair for each copy that is there as it was. Two new copies may have one old one."""
    pair, rows = _possible(correlation)
    if len(rows) == 0:
        return correlation
    before, after = meanings(old, new, correlation)
    same = alike(before, pair, after, rows, correlation)
    symbol, block = correlation.symbol.copy(), correlation.block.copy()
    block[rows] = -1
    equals: dict[int, list[int]] = {}
    for one, other in zip(pair[same].tolist(), rows[same].tolist(), strict=True):
        equals.setdefault(other, []).append(one)
    taken: set[int] = set()
    for other, found in equals.items():
        block[other] = next((one for one in found if one not in taken), found[0])
        taken.add(int(block[other]))
    anchor = new.blocks.anchor[rows]
    symbol[anchor] = np.where(block[rows] >= 0, old.blocks.anchor[np.maximum(block[rows], 0)], -1)
    return replace(correlation, symbol=symbol, block=block)


def _possible(correlation: Correlation) -> tuple[I64, I64]:
    """(old block, new block) for all that are in one group."""
    old_rows = np.flatnonzero(correlation.old_group != NO_GROUP)
    rows = np.flatnonzero(correlation.new_group != NO_GROUP)
    old_rows = old_rows[np.argsort(correlation.old_group[old_rows], kind="stable")]
    ordered = correlation.old_group[old_rows]
    first = np.searchsorted(ordered, correlation.new_group[rows])
    last = np.searchsorted(ordered, correlation.new_group[rows], side="right")
    owner, within = ragged(last - first)
    return old_rows[first[owner] + within], rows[owner]
