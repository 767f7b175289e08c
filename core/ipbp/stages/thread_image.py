"""New thread-local variables: their initial values in the patch, and the fields that wait for their place.

The values lie in the arena, where debuggers and later patches find them: that is the address by which such a
variable goes. The threads get their copies from the program's own dynamic loader, which is given a library that holds
nothing but these values (`formats.elf_thread_library`). Where it puts the block is known after it has done so, and
then the fields that count from the thread pointer can be filled in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipbp.arch.fields import part_of
from ipbp.graph.edges import EdgeKind
from ipbp.graph.layout import LateField, Layout, ThreadImage
from ipbp.graph.model import I64, BlockKind
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.placer import Placer
from ipbp.stages.targets import CarriedEdges
from ipbp.stages.thread_locals import OFFSET_KINDS, offsets

THREAD_CHUNK = ".tdata"
THREAD_EXTRA = 8192
"""Bytes beside the values at most: alignment, the cell, a path (PATH_MAX is 4096)."""

_THREAD_KINDS = (BlockKind.TLS_DATA, BlockKind.TLS_BSS)


def align_threads(units: Sequence[Unit], placer: Placer) -> None:
    """Let the chunk of the initial values begin at the widest alignment in it, so that the copies are aligned, too."""
    widest = [
        int(rows.alignment[unit.carried[is_one_of(rows.kind[unit.carried], _THREAD_KINDS)]].max(initial=0))
        for unit in units
        for rows in (unit.graph.blocks,)
    ]
    if max(widest, default=0):
        placer.put(THREAD_CHUNK, 0, max(widest))


def thread_image(placer: Placer, library: str) -> ThreadImage | None:
    """The initial values that were placed, with a cell and the library's name behind them; None without any."""
    chunk = next((row for row in placer.chunks() if row.name == THREAD_CHUNK and row.size), None)
    if chunk is None:
        return None
    cell = placer.put(".got", 8, 8)
    name = placer.put(".got", len(library.encode()) + 1, 1)
    return ThreadImage(chunk.start, chunk.size, chunk.alignment, cell, name, library)


def waiting(unit: Unit, edges: CarriedEdges) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """For each fixup whether it counts from the thread pointer to a new variable."""
    known = np.zeros(len(unit.graph.symbols), dtype=np.bool_)
    known[list(unit.thread)] = True
    result: np.ndarray[tuple[int], np.dtype[np.bool_]] = is_one_of(edges.kind, OFFSET_KINDS) & ~known[edges.target]
    return result


def thread_targets(unit: Unit, edges: CarriedEdges, meaning: I64, layout: Layout) -> I64:
    """Per fixup the offset of its target from the thread pointer; of a new variable that from the block's start."""
    start = layout.thread.start if layout.thread else UNBOUND
    result: I64 = np.where(waiting(unit, edges), meaning - start, offsets(unit)[edges.target])
    return result


def late_fields(unit: Unit, edges: CarriedEdges, place: I64, value: I64, widths: I64) -> list[LateField]:
    """The fields that wait, with what they hold so far as addend."""
    rows = np.flatnonzero(waiting(unit, edges))
    columns = (place[rows].tolist(), widths[rows].tolist(), value[rows].tolist(), edges.kind[rows].tolist())
    return [
        LateField(at, width, number, *part_of(EdgeKind(kind))) for at, width, number, kind in zip(*columns, strict=True)
    ]
