"""What jumps into the first bytes of a function, apart from the function's own direct branches.

A label table (computed goto, a switch) may lead there, and so may another function: hand-written assembly does, and
compilers that split one function do. A jump that is written over those bytes would be met in its middle.
"""

from __future__ import annotations

import numpy as np

from ipbp.arch.machines import machine_of
from ipbp.graph.model import I32, I64, BlockKind, LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.stages.targets import ABSOLUTES


def entry_targets(graph: LinkGraph, blocks: I32) -> dict[int, tuple[int, ...]]:
    """For each of these functions the offsets among its first bytes, without the very first, that something else of
    its object leads to; functions without one are left out."""
    found: dict[int, set[int]] = {}
    for block, offset in [*_by_edges(graph, blocks), *_by_neighbours(graph, blocks)]:
        found.setdefault(block, set()).add(offset)
    return {block: tuple(sorted(offsets)) for block, offsets in found.items()}


def _by_edges(graph: LinkGraph, blocks: I32) -> list[tuple[int, int]]:
    """By the fixups of other blocks. A distance in data counts from its table, which starts with its block."""
    edges, home, machine = graph.edges, graph.symbols.block[graph.edges.target], machine_of(graph.machine)
    wanted = np.zeros(len(graph.blocks) + 1, dtype=np.bool_)
    wanted[blocks] = True
    rows = np.flatnonzero(wanted[np.where(home >= 0, home, len(graph.blocks))] & (edges.block != home))
    from_code = graph.blocks.kind[edges.block[rows]] == BlockKind.CODE
    kind = edges.kind[rows]
    counted_from = np.where(from_code, machine.from_end[kind].astype(np.int64), -edges.offset[rows])
    counted_from[is_one_of(kind, ABSOLUTES)] = 0
    place = graph.symbols.offset[edges.target[rows]] + edges.addend[rows] + counted_from
    near = (place > 0) & (place < machine.entry.size)
    return list(zip(home[rows[near]].tolist(), place[near].tolist(), strict=True))


def _by_neighbours(graph: LinkGraph, blocks: I32) -> list[tuple[int, int]]:
    """By branches for which the assembler needed no fixup. The bytes are searched for what may be a branch to there;
    only where there is one, the code around it is decoded."""
    rows, machine = graph.blocks, machine_of(graph.machine)
    code = np.flatnonzero(rows.kind == BlockKind.CODE)
    shared = np.bincount(rows.section[code], minlength=len(graph.sections) + 1)
    found = []
    for section in np.unique(rows.section[blocks]).tolist():
        if shared[section] < 2:
            continue
        place, target = machine.possible_branches(np.frombuffer(graph.sections[section].content, np.uint8))
        inside = code[rows.section[code] == section]
        for block in blocks[rows.section[blocks] == section].tolist():
            start = int(rows.offset[block])
            near = slice(*np.searchsorted(target, [start + 1, start + machine.entry.size]).tolist())
            for other in _holders(graph, inside[inside != block], place[near]):
                here = int(rows.offset[other])
                offsets = (here + target - start for target in machine.branch_targets(bytes(graph.content(other))))
                found += [(block, offset) for offset in offsets if 0 < offset < machine.entry.size]
    return found


def _holders(graph: LinkGraph, blocks: I64, places: I64) -> list[int]:
    """Those of the blocks that one of these places of their section is in."""
    offset, size = graph.blocks.offset[blocks], graph.blocks.size[blocks]
    inside = (places[:, None] >= offset) & (places[:, None] < offset + size)
    return [int(block) for block in blocks[inside.any(axis=0)]]
