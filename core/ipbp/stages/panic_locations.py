"""Where a Rust program says that it panicked: constants with a file's name, a line and a column.

rustc makes a `core::panic::Location` for each call that may panic, so a line added at the top of a file changes a
constant of every function below. Their code is the same, and so is what they do but for the number in a message; the
two numbers are no part of what such a constant is. A function that changed otherwise takes its new ones along.
"""

from __future__ import annotations

import numpy as np

from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, BlockKind, LinkGraph

SIZE = 24  # &str (address, length), u32 line, u32 column: library/core/src/panic/location.rs
POSITION = slice(16, 24)
_SUFFIX = b".rs"


def panic_locations(graph: LinkGraph) -> I64:
    """Blocks that are locations: unnamed, of that size and shape, with the name of a Rust source."""
    blocks, symbols, edges = graph.blocks, graph.symbols, graph.edges
    shaped = (blocks.size == SIZE) & (blocks.kind == BlockKind.RELRO) & (np.diff(graph.first_edge) == 1)
    found = []
    for block in np.flatnonzero(shaped).tolist():
        edge = int(graph.first_edge[block])
        target = int(edges.target[edge])
        home = int(symbols.block[target])
        plain = edges.offset[edge] == 0 and edges.kind[edge] == EdgeKind.ABS64
        if symbols.name[int(blocks.anchor[block])] or not plain or home < 0:
            continue
        start = int(symbols.offset[target]) + int(edges.addend[edge])
        length = int.from_bytes(graph.content(block)[8:16], "little")
        if bytes(graph.content(home)[start : start + length]).endswith(_SUFFIX):
            found.append(block)
    return np.array(found, dtype=np.int64)
