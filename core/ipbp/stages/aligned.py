"""The fixups of functions that did not change, side by side."""

from __future__ import annotations

import numpy as np

from ipbp.graph.model import I32, I64, BlockKind, LinkGraph
from ipbp.graph.rows import ragged
from ipbp.stages.compare import Comparison, Status


def aligned_edges(old: LinkGraph, new: LinkGraph, comparison: Comparison, old_block: I32) -> tuple[I64, I64, I64]:
    """For each fixup of new code that is SAME, and has as many as its counterpart in `old_block`: the new block, the
    row of the old edge, the row of the new edge."""
    rows = np.flatnonzero((comparison.status == Status.SAME) & (new.blocks.kind == BlockKind.CODE))
    pair = old_block[rows].astype(np.int64)
    count = np.diff(new.first_edge)[rows]
    aligned = (pair >= 0) & (np.diff(old.first_edge)[np.maximum(pair, 0)] == count)
    rows, pair, count = rows[aligned], pair[aligned], count[aligned]
    owner, within = ragged(count)
    return rows[owner], old.first_edge[pair][owner] + within, new.first_edge[rows][owner] + within
