"""Functions of which a unit has several copies under one local name.

rustc, when it optimises, gives every codegen unit that uses a small function a copy of its own. Each has an entry of
its own in the program, and nothing tells which is which; while all are the same that does not matter.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.model import Binding, BlockKind, LinkGraph
from ipbp.stages.compare import Comparison, Status


def copies_that_differ(old: LinkGraph, new: LinkGraph, comparison: Comparison) -> tuple[Refusal, ...]:
    """`several-copies` for each changed function that either side has more than once."""
    count = {**_copies(new), **_copies(old)}
    changed = np.flatnonzero((comparison.status == Status.CHANGED) & (new.blocks.kind == BlockKind.CODE))
    names = (new.block_name(block) for block in changed.tolist())
    return tuple(_refusal(name, count[name], new.path) for name in dict.fromkeys(names) if name in count)


def _copies(graph: LinkGraph) -> dict[str, int]:
    anchors = graph.blocks.anchor[graph.blocks.kind == BlockKind.CODE]
    local = anchors[graph.symbols.binding[anchors] == Binding.LOCAL]
    counted = Counter(graph.symbols.name[row] for row in local.tolist())
    return {name: number for name, number in counted.items() if number > 1 and name}


def _refusal(name: str, number: int, file: str) -> Refusal:
    return Refusal(
        "several-copies",
        f"the compiler made {number} copies of '{name}', and which of them runs where is not known",
        "Mark it `#[inline(never)]`, or build with `codegen-units = 1`, and start the program once more.",
        name,
        file,
    )
