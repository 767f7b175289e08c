"""Own names of a library that its code reaches straight, though another image could define them as well.

A library calls the functions that it exports through stubs and cells, so that the dynamic loader decides whose
definition counts. Linked with -Bsymbolic-functions, --dynamic-list or a version script it does not, and nothing in its
tables says so for a single name: what its code does now, says it.
"""

from __future__ import annotations

import numpy as np

from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import Binding, BlockKind, Visibility
from ipbp.graph.rows import is_one_of
from ipbp.stages.reading import read_blocks
from ipbp.stages.select import OldSide
from ipbp.stages.targets import BRANCHES, GOT_KINDS


def straight_names(old: OldSide, image: LoadedImage, read: MemoryReader) -> frozenset[str]:
    """Names that the unit exports and that its proved code in the library `image` reaches without the loader's help."""
    graph, symbols = old.graph, old.graph.symbols
    if image.is_executable or not len(graph.edges):
        return frozenset()
    shared = (symbols.block >= 0) & (symbols.binding != Binding.LOCAL) & (symbols.visibility == Visibility.DEFAULT)
    rows = is_one_of(graph.edges.kind, (*BRANCHES, *GOT_KINDS)) & shared[graph.edges.target]
    blocks = np.unique(graph.edges.block[rows]).astype(np.int64)
    place = old.address[graph.blocks.anchor[blocks]]
    usable = old.proved[blocks] & (graph.blocks.kind[blocks] == BlockKind.CODE) & (place >= 0)
    reading = read_blocks(graph, blocks[usable], place[usable], image, read)
    target = graph.edges.target[reading.edge]
    told = reading.known & (reading.cell == 0) & rows[reading.edge] & (reading.means == old.address[target])
    return frozenset(symbols.name[symbol] for symbol in np.unique(target[told]).tolist())
