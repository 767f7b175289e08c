"""Functions whose old callers must not be running when they are replaced.

LLVM may let a function that only its own codegen unit calls take fewer arguments than the source says, or know their
values: it has all callers in sight, and compiles them for it. Callers that are the same code as before are fit for the
new version, too. But where every caller changed along with the function, one that still runs would call the new code
as the old one was called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import Binding, BlockKind, LinkGraph
from ipbp.graph.unit import UNBOUND
from ipbp.protocol import OldCaller
from ipbp.stages.compare import Comparison, Status
from ipbp.stages.select import OldSide, Replaced


def old_callers(
    old: OldSide, new: LinkGraph, comparison: Comparison, replaced: Iterable[Replaced], file: str
) -> Iterator[OldCaller]:
    """The old callers, each with the function that it must not call. `file`: of the unit, for messages."""
    graph, edges = old.graph, old.graph.edges
    home = graph.symbols.block[edges.target]
    is_call = np.isin(edges.kind, (EdgeKind.BRANCH32, EdgeKind.PCREL8))
    kept = np.zeros(len(graph.blocks), dtype=np.bool_)
    same = comparison.old_block[(comparison.status == Status.SAME) & (comparison.old_block >= 0)]
    kept[same] = True
    for row in replaced:
        block = int(comparison.old_block[row.block])
        if block < 0 or new.symbols.binding[new.blocks.anchor[row.block]] != Binding.LOCAL:
            continue
        to_it = home == block
        if (to_it & ~is_call).any():
            continue  # its address is taken: it takes what the source says
        callers = np.unique(edges.block[to_it])
        callers = callers[(graph.blocks.kind[callers] == BlockKind.CODE) & (callers != block)]
        if kept[callers].any():
            continue
        for caller in callers.tolist():
            start = int(old.address[graph.blocks.anchor[caller]])
            if start != UNBOUND:
                end = start + int(graph.blocks.size[caller])
                yield OldCaller(graph.block_name(caller), row.name, file, start + 1, end)
