"""Variables that each thread has elsewhere: the code asks for them, as it was compiled to.

__tls_get_addr wants a pair of numbers, the module's id and an offset in the module's block ("ELF Handling For
Thread-Local Storage", section 3.4.6); local dynamic code asks for the block's start and adds the offsets itself. A
descriptor holds the function to ask and what it wants to know, which is the loader's own affair; so code that asks by
descriptor uses the one that the loader keeps for the image's old code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipbp.graph.edges import EdgeKind
from ipbp.graph.layout import ThreadPair
from ipbp.graph.model import I64
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.placer import Placer
from ipbp.stages.targets import CarriedEdges

PAIR_SIZE = 16
PAIR_KINDS = (EdgeKind.TLS_GD32, EdgeKind.TLS_LD32)
BLOCK_KINDS = (EdgeKind.DTPOFF32, EdgeKind.DTPOFF64)
DESCRIPTOR_KINDS = (
    EdgeKind.TLSDESC_PCREL32,
    EdgeKind.TLSDESC_PAGE21,
    EdgeKind.TLSDESC_LOW12_LOAD,
    EdgeKind.TLSDESC_LOW12,
    EdgeKind.TLSDESC_CALL,
)
ASKING_KINDS = (*PAIR_KINDS, *BLOCK_KINDS, *DESCRIPTOR_KINDS)
"""Fixups of code that asks; `pair_targets` has their targets."""


def place_pairs(units: Sequence[Unit], edges: Sequence[CarriedEdges], placer: Placer) -> tuple[ThreadPair, ...]:
    """A pair for each variable and each block that is asked for, in cells that nothing else uses."""
    pairs: dict[tuple[int, int], ThreadPair] = {}
    for unit, rows in zip(units, edges, strict=True):
        for key in _wanted(unit, rows):
            if key not in pairs:
                pairs[key] = ThreadPair(placer.put(".got", PAIR_SIZE, 8), *key)
    return tuple(pairs.values())


def pair_targets(unit: Unit, edges: CarriedEdges, pairs: Sequence[ThreadPair]) -> I64:
    """Per fixup the address of its pair or descriptor, or the variable's offset in its block; UNBOUND for others."""
    column = np.full(len(edges.kind), UNBOUND, dtype=np.int64)
    places = {(pair.module, pair.in_block): pair.address for pair in pairs}
    for row in np.flatnonzero(is_one_of(edges.kind, ASKING_KINDS)).tolist():
        place = unit.thread[int(edges.target[row])]
        if edges.kind[row] in BLOCK_KINDS:
            column[row] = place.in_block
        elif edges.kind[row] in DESCRIPTOR_KINDS:
            # The fixup at the call only marks it, and changes no bytes.
            column[row] = 0 if edges.kind[row] == EdgeKind.TLSDESC_CALL else place.descriptor
        else:
            column[row] = places[place.module, place.in_block if edges.kind[row] == EdgeKind.TLS_GD32 else 0]
    return column


def _wanted(unit: Unit, edges: CarriedEdges) -> list[tuple[int, int]]:
    found: dict[tuple[int, int], None] = {}
    for row in np.flatnonzero(is_one_of(edges.kind, PAIR_KINDS)).tolist():
        place = unit.thread.get(int(edges.target[row]))
        if place is not None:
            found[place.module, place.in_block if edges.kind[row] == EdgeKind.TLS_GD32 else 0] = None
    return list(found)
