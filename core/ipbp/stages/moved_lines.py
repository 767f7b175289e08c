"""Functions that are as they were, but for the source line that their panics name.

A line added at the top of a file moves all panics below it. That alone makes no function another one; whoever wants
the numbers right asks for it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ipbp.graph.columns import I64, U64
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.graph.rows import words_at
from ipbp.stages.aligned import aligned_edges
from ipbp.stages.compare import Comparison, Status, join_parts
from ipbp.stages.panic_locations import POSITION, SIZE


def with_moved_lines(old: LinkGraph, new: LinkGraph, comparison: Comparison, exact: bool) -> Comparison:
    """The comparison with a note of how many such functions there are; with `exact` they are changed ones."""
    moved = _moved(old, new, comparison)
    if len(moved) == 0:
        return comparison
    if exact:
        status, words = comparison.status.copy(), "its panics name other lines"
        status[moved] = Status.CHANGED
        reason = {**comparison.reason, **dict.fromkeys(moved.tolist(), words)}
        join_parts(new, status, reason)
        return replace(comparison, status=status, reason=reason)
    one = len(moved) == 1
    note = (
        f"{'a function' if one else f'{len(moved)} functions'} in {new.path} did not change but for the lines that "
        f"{'its' if one else 'their'} panics name; those stay (`hotpatch --exact` updates them)"
    )
    return replace(comparison, notes=(*comparison.notes, note))


def _moved(old: LinkGraph, new: LinkGraph, comparison: Comparison) -> I64:
    """New blocks of code that are the same and refer to a location in another line."""
    block, old_edge, new_edge = aligned_edges(old, new, comparison, comparison.old_block)
    one, other = _shaped(old, old_edge), _shaped(new, new_edge)
    both = np.flatnonzero((one >= 0) & (other >= 0))
    # What is no location would not be the same with other bytes there.
    different = both[_position(old, one[both]) != _position(new, other[both])]
    found: I64 = np.unique(block[different])
    return found


def _shaped(graph: LinkGraph, edge: I64) -> I64:
    """The block that each edge leads to, where that has the shape of a location, or -1."""
    home = graph.symbols.block[graph.edges.target[edge]].astype(np.int64)
    block = np.maximum(home, 0)
    shaped = (home >= 0) & (graph.blocks.size[block] == SIZE) & (graph.blocks.kind[block] == BlockKind.RELRO)
    shaped &= ~graph.symbols.name.are_given()[graph.blocks.anchor[block]]
    result: I64 = np.where(shaped, home, -1)
    return result


def _position(graph: LinkGraph, block: I64) -> U64:
    held = graph.sections.content
    start = held.start[graph.blocks.section[block]] + graph.blocks.offset[block]
    return words_at(held.octets, start + POSITION.start)
