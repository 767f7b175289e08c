"""Blocks of an object held against memory at given places: do the bytes agree, and what do the fixups say?

The heart of run-pre matching (Ksplice, section 4.3): where everything but the fixups is equal, the numbers that the
linker put into the fixups tell where it put the things that they refer to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.arch.forms import Filled, Form
from ipbp.arch.machines import machine_of
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import I64, LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND
from ipbp.stages.got_base import image_base
from ipbp.stages.memory import read_pieces, read_words
from ipbp.stages.panic_locations import POSITION

EQUAL, UNREADABLE = -1, -2
"""In `Reading.difference`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`block`, `address`: what was held against what. `difference`: offset of the first byte that differs, EQUAL or
    UNREADABLE. `memory`: the bytes that were found.

    One row a fixup of these blocks: `edge`, its row in the graph; `owner`, the index of its block here; `means`, the
    load address of S that it gives away, for rows that are `known`; `cell`, the pointer cell that it goes through,
    or 0. The address of a thread-local variable is that of its initial value.
    """

    block: I64
    address: I64
    difference: I64
    memory: list[bytes | None]
    edge: I64
    owner: I64
    means: I64
    known: npt.NDArray[np.bool_]
    cell: I64

    def matches(self) -> npt.NDArray[np.bool_]:
        result: npt.NDArray[np.bool_] = self.difference == EQUAL
        return result


def read_blocks(
    graph: LinkGraph, block: I64, address: I64, image: LoadedImage, read: MemoryReader, locations: I64 | None = None
) -> Reading:
    """Every block of the column `block` held against memory at the same row of `address`. Two round trips at most:
    the bytes, then the pointer cells that they use. `locations`: blocks of which the source line does not count
    (`stages.panic_locations`)."""
    size = graph.blocks.size[block]
    memory = read_pieces(read, address, size)
    missing = np.array([content is None for content in memory], dtype=np.bool_)
    start = np.concatenate(([0], np.cumsum(size)))
    expected = np.frombuffer(b"".join(_content(graph, b, n) for b, n in _pairs(block, size)), np.uint8)
    actual = np.frombuffer(b"".join(_or_zeros(c, n) for c, n in zip(memory, size.tolist(), strict=True)), np.uint8)

    edge, owner = _edges_of(graph, block)
    edges = graph.edges
    position, offset = start[owner] + edges.offset[edge], edges.offset[edge]
    thing = owner * len(graph.symbols) + edges.target[edge]
    filled = Filled(expected, actual, position, address[owner] + offset, edges.kind[edge], edges.addend[edge], thing)
    fields = machine_of(graph.machine).read_fields(filled)
    wrong = np.flatnonzero((expected != actual) & ~fields.masked)
    if locations is not None:
        held = np.searchsorted(start, wrong, side="right") - 1
        place = wrong - start[held]
        in_line = (place >= POSITION.start) & (place < POSITION.stop) & np.isin(block[held], locations)
        wrong = wrong[~in_line]
    difference = np.full(len(block), EQUAL, dtype=np.int64)
    holder = np.searchsorted(start, wrong, side="right") - 1
    holders, first = np.unique(holder, return_index=True)
    difference[holders] = wrong[first] - start[holders]
    difference[missing] = UNREADABLE

    place = address[owner] + fields.position - start[owner]
    means, known, cell = _meanings(fields.form, fields.number, fields.addend, place, difference[owner], image, read)
    return Reading(block, address, difference, memory, edge, owner, means, known, cell)


def _pairs(block: I64, size: I64) -> list[tuple[int, int]]:
    return list(zip(block.tolist(), size.tolist(), strict=True))


def _content(graph: LinkGraph, block: int, size: int) -> bytes:
    return bytes(graph.content(block)).ljust(size, b"\0")


def _or_zeros(content: bytes | None, size: int) -> bytes:
    return bytes(size) if content is None else content


def _edges_of(graph: LinkGraph, block: I64) -> tuple[I64, I64]:
    count = graph.first_edge[block + 1] - graph.first_edge[block]
    owner = np.repeat(np.arange(len(block)), count)
    before = np.concatenate(([0], np.cumsum(count)[:-1])) if len(block) else count
    return np.arange(len(owner)) - before[owner] + graph.first_edge[block][owner], owner


def _meanings(
    form: npt.NDArray[np.uint8],
    number: I64,
    addend: I64,
    place: I64,
    difference: I64,
    image: LoadedImage,
    read: MemoryReader,
) -> tuple[I64, npt.NDArray[np.bool_], I64]:
    """(S, whether it is known, pointer cell) for each fixup. What a block that differs has in its fields may be
    anything; its cells are not read."""
    thread_pointer = image.thread_pointer
    got_base = image_base(image)
    is_thread_cell = is_one_of(form, (Form.TLS_CELL, Form.TLS_CELL_ADDRESS))
    is_cell = is_one_of(form, (Form.CELL, Form.GOT_CELL, Form.CELL_ADDRESS)) | is_thread_cell
    counted_from = np.where(is_one_of(form, (Form.PLACE, Form.CELL, Form.TLS_CELL, Form.GOT_BASE)), place, 0)
    counted_from = np.where(is_one_of(form, (Form.GOT_OFFSET, Form.GOT_CELL)), got_base, counted_from)
    value = number - addend + counted_from
    through = is_cell & (difference == EQUAL)
    through &= (value >= image.start) & (value < image.end)
    cell = np.where(through, value, 0)
    content = np.zeros(len(value), dtype=np.int64)
    if through.any():
        content[through] = read_words(read, cell[through])
    from_thread = (form == Form.TLS_OFFSET) | ((form == Form.TLS_BLOCK) & (number < 0))
    means = np.select(
        [is_thread_cell, is_cell, from_thread, form == Form.TLS_BLOCK],
        [content + thread_pointer, content, value + thread_pointer, value + image.tls_start],
        value,
    )
    known = (form != Form.NONE) & (difference == EQUAL) & (~is_cell | (through & (content != 0)))
    # A pointer below the image was not relocated yet: the loader has not run.
    known &= (form != Form.ABSOLUTE) | (means >= image.start) | ~np.bool_(image.is_pie)
    known &= (~is_cell | is_thread_cell) | (means >= image.start) | ~np.bool_(image.is_pie)
    # Where a library's variables are in the threads is its loader's secret.
    known &= ~(from_thread | is_thread_cell) | np.bool_(image.is_executable or not image.is_pie)
    # What counts from the table tells nothing where the table is not known, and its base nothing where it is right.
    known &= ~is_one_of(form, (Form.GOT_OFFSET, Form.GOT_CELL)) | np.bool_(got_base != UNBOUND)
    known &= (form != Form.GOT_BASE) | ((means != got_base) & np.bool_(got_base != UNBOUND))
    return means, known, cell
