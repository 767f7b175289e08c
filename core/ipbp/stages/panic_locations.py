"""Where a Rust program says that it panicked: constants with a file's name, a line and a column.

rustc makes a `core::panic::Location` for each call that may panic, so a line added at the top of a file changes a
constant of every function below. Their code is the same, and so is what they do but for the number in a message; the
two numbers are no part of what such a constant is. A function that changed otherwise takes its new ones along.
"""

from __future__ import annotations

import numpy as np

from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, BlockKind, LinkGraph
from ipbp.kept import of_the_last

SIZE = 24  # &str (address, length), u32 line, u32 column: library/core/src/panic/location.rs
POSITION = slice(16, 24)
_SUFFIX = b".rs"


@of_the_last(4)
def panic_locations(graph: LinkGraph) -> I64:
    """Blocks that are locations: unnamed, of that size and shape, with the name of a Rust source."""
    blocks, symbols, edges = graph.blocks, graph.symbols, graph.edges
    shaped = (blocks.size == SIZE) & (blocks.kind == BlockKind.RELRO) & (np.diff(graph.first_edge) == 1)
    block = np.flatnonzero(shaped & ~symbols.name.are_given()[blocks.anchor])
    edge = graph.first_edge[block]
    plain = (edges.offset[edge] == 0) & (edges.kind[edge] == EdgeKind.ABS64)
    plain &= symbols.block[edges.target[edge]] >= 0
    block, edge = block[plain], edge[plain]
    target = edges.target[edge]
    home, start = symbols.block[target].tolist(), (symbols.offset[target] + edges.addend[edge]).tolist()
    length = [int.from_bytes(graph.content(row)[8:16], "little") for row in block.tolist()]
    named = dict.fromkeys(zip(home, start, length, strict=True), False)  # most are of a few files
    for row, first, size in named:
        named[row, first, size] = bytes(graph.content(row)[first : first + size]).endswith(_SUFFIX)
    is_location = np.array([named[key] for key in zip(home, start, length, strict=True)], dtype=np.bool_)
    found: I64 = block[is_location].astype(np.int64)
    return found
