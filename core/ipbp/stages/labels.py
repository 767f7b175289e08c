"""Functions that take the address of a label of their own in code, to keep it somewhere (GCC, "Labels as Values").

A table of labels is constant and is carried along with its function. An address that code stores may be anywhere by
now: in the state of a coroutine, in a `__builtin_setjmp` buffer. It leads into the old code with a frame of the new.
"""

from __future__ import annotations

import numpy as np

from ipbp.arch.machines import machine_of
from ipbp.graph.model import LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.stages.targets import ABSOLUTES


def stores_labels(graph: LinkGraph, block: int) -> bool:
    """Whether the code of this block makes an address inside itself, to keep it."""
    edges = graph.edges
    rows = np.arange(*graph.edges_of(block).indices(len(edges)))
    own = rows[(graph.symbols.block[edges.target[rows]] == block) & is_one_of(edges.kind[rows], ABSOLUTES)]
    inside = graph.symbols.offset[edges.target[own]] + edges.addend[own]
    if ((inside > 0) & (inside < graph.blocks.size[block])).any():
        return True
    fixed = set(edges.offset[rows].tolist())  # what these hold is not in the bytes
    code = bytes(graph.content(block))
    places = machine_of(graph.machine).stored_places(code)
    tables = [range(start, end) for home, start, end in graph.tables.tolist() if home == block]
    made = {target for field, target in places if field not in fixed and 0 < target < len(code)}
    # A jump table that the file says is there is no place to go to.
    return any(not any(target in table for table in tables) for target in made)
