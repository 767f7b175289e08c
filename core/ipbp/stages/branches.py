"""Edges that the assembler kept to itself.

Without -ffunction-sections a call from one function to a local one of the same section needs no relocation: the
assembler knows the distance and writes it. The distance changes whenever anything between the two does, and it is
wrong once one of them moves. Decoding the code finds these branches, and addresses taken by `lea`, and makes edges
of them. That costs time, so it is done for the blocks that need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipbp.arch.fields import clear_fields
from ipbp.arch.machines import machine_of
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, BlockKind, Edges, LinkGraph


@dataclass(frozen=True, slots=True)
class _Found:
    block: int
    offset: int
    kind: EdgeKind
    target: int
    addend: int


def with_local_branches(graph: LinkGraph, blocks: Iterable[int] | None = None) -> LinkGraph:
    """The graph with edges for branches and addresses that lead from `blocks` (default: all code that shares its
    section) into other code of the same section. Blocks, symbols and their numbers stay as they are, and so do
    edges that exist. Their kinds are what the machine has for it, `BRANCH32` for a call on x86-64."""
    shared = _sharing(graph)
    chosen = [b for b in blocks if shared[b]] if blocks is not None else np.flatnonzero(shared).tolist()
    if not chosen:
        return graph
    starts, order = _code_places(graph)
    found = [row for block in chosen for row in _edges_of(graph, block, starts, order)]
    return _with_edges(graph, found) if found else graph


def _sharing(graph: LinkGraph) -> npt.NDArray[np.bool_]:
    """For each block whether it is code with other code in its section."""
    if graph.has_all_edges:
        return np.zeros(len(graph.blocks), dtype=np.bool_)
    code = graph.blocks.kind == BlockKind.CODE
    count = np.bincount(graph.blocks.section[code], minlength=len(graph.sections) + 1)
    result: npt.NDArray[np.bool_] = code & (count[graph.blocks.section] > 1)
    return result


def _code_places(graph: LinkGraph) -> tuple[I64, I64]:
    """Sorted keys `section << 40 | offset` of all code blocks, and the blocks in that order."""
    code = np.flatnonzero(graph.blocks.kind == BlockKind.CODE)
    keys = (graph.blocks.section[code].astype(np.int64) << 40) + graph.blocks.offset[code]
    order = np.argsort(keys)
    return keys[order], code[order].astype(np.int64)


def _edges_of(graph: LinkGraph, block: int, starts: I64, order: I64) -> Iterator[_Found]:
    code = bytes(graph.content(block))
    rows = graph.edges_of(block)
    known = {int(offset) for offset in graph.edges.offset[rows]}
    section = int(graph.blocks.section[block]) << 40
    here = int(graph.blocks.offset[block])
    machine = machine_of(graph.machine)
    for found in machine.local_fields(code):
        target, place = found.target, here + found.target
        if found.field in known or 0 <= target < len(code) or place < 0:
            continue
        row = int(np.searchsorted(starts, section + place, side="right")) - 1
        if row < 0:
            continue
        home = int(order[row])
        inside = place - int(graph.blocks.offset[home])
        if int(graph.blocks.section[home]) << 40 != section or inside >= int(graph.blocks.size[home]):
            continue
        # S + A is the place, less what the processor adds to the field's own; both ends are in one section.
        addend = inside - int(machine.from_end[found.kind])
        yield _Found(block, found.field, found.kind, int(graph.blocks.anchor[home]), addend)


def _with_edges(graph: LinkGraph, found: list[_Found]) -> LinkGraph:
    edges = graph.edges
    block = np.concatenate([edges.block, np.array([row.block for row in found], dtype=np.int32)])
    offset = np.concatenate([edges.offset, np.array([row.offset for row in found], dtype=np.int64)])
    kind = np.concatenate([edges.kind, np.array([row.kind for row in found], dtype=np.uint8)])
    target = np.concatenate([edges.target, np.array([row.target for row in found], dtype=np.int32)])
    addend = np.concatenate([edges.addend, np.array([row.addend for row in found], dtype=np.int64)])
    order = np.lexsort((offset, block))
    first = np.searchsorted(block[order], np.arange(len(graph.blocks) + 1)).astype(np.int64)
    completed = Edges(block[order], offset[order], kind[order], target[order], addend[order])
    return replace(graph, edges=completed, first_edge=first)


def masked_code(graph: LinkGraph, block: int) -> bytes:
    """The bytes of one block with its fixup fields as zeros."""
    octets = np.frombuffer(graph.content(block), np.uint8).copy()
    rows = graph.edges_of(block)
    clear_fields(octets, graph.edges.offset[rows], graph.edges.kind[rows])
    return octets.tobytes()
