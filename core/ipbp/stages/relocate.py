"""Relocate: every edge's equation, and with it the final bytes of the patch.

One pass over columns for each unit. What a symbol stands for was settled by `layout`; here S is chosen for each
edge (the meaning of the name, the carried copy for an edge into a function's interior, the cell of a GOT edge, the
stub where there is one), the equation of its kind is computed, and the result is checked against the width of the
field. Every result that does not fit is refused, none is cut off. Beyond this point bytes are final.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipbp.arch.fields import GOT_RELATIVE, ROWS, WIDTH, out_of_range, results, write_fields
from ipbp.arch.machines import Machine, machine_of
from ipbp.errors import Refusal
from ipbp.graph.edges import EdgeKind
from ipbp.graph.layout import PROTECTIONS, LateField, Layout, LinkedImage, UnitLayout, UnwindTable
from ipbp.graph.model import I64
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.got_base import BASE_KINDS
from ipbp.stages.stubs import shown
from ipbp.stages.targets import BRANCHES, GOT_KINDS, CarriedEdges, carried_edges, go_by_name
from ipbp.stages.thread_image import late_fields, thread_targets
from ipbp.stages.thread_locals import OFFSET_KINDS
from ipbp.stages.thread_pairs import ASKING_KINDS, pair_targets

_SIZES = (EdgeKind.SIZE32, EdgeKind.SIZE64)


def relocate(units: Sequence[Unit], layout: Layout) -> LinkedImage:
    """The bytes of the patch. Refusals, in the result: `relocation-out-of-range`.

    The layout must have no refusals: every target has an address.
    """
    pieces: list[tuple[int, bytes]] = []
    refusals: list[Refusal] = []
    late: list[LateField] = []
    for unit, columns in zip(units, layout.units, strict=True):
        edges = carried_edges(unit)
        place = columns.block[edges.block] + edges.offset
        value = _results(unit, columns, edges, place, layout)
        late += late_fields(unit, edges, place, value, WIDTH[edges.kind].astype(np.int64))
        refusals += _misses(unit, edges, value)
        pieces += _blocks(unit, columns, edges, value)
    pieces += [(row.address, row.value.to_bytes(8, "little")) for row in layout.slots if row.value != UNBOUND]
    machine = machine_of(units[0].graph.machine)
    pieces += [(row.address, machine.stub(row.address, row.slot)) for row in layout.stubs]
    for pair in layout.pairs:
        pieces.append((pair.address, pair.module.to_bytes(8, "little") + pair.in_block.to_bytes(8, "little")))
    if layout.thread is not None:
        pieces.append((layout.thread.library_at, layout.thread.library.encode() + b"\0"))
        late.append(LateField(layout.thread.offset_at, 8, 0))
    if layout.unwind is not None:
        content, missed = _unwind(units, layout, layout.unwind)
        pieces.append((layout.unwind.address, content))
        refusals += missed
    segments = {protection: _gather(layout, protection, pieces, machine) for protection in PROTECTIONS}
    return LinkedImage(segments, tuple(refusals), tuple(late))


def _results(unit: Unit, columns: UnitLayout, edges: CarriedEdges, place: I64, layout: Layout) -> I64:
    meaning, by_name = columns.meaning[edges.target], go_by_name(edges, columns.copy)
    target = np.where(by_name, meaning, columns.copy[edges.target])
    # A stub stands for a call's target that is far, and for an indirect function wherever its address is used.
    through_stub = by_name & (columns.stub[edges.target] != UNBOUND)
    through_stub &= is_one_of(edges.kind, BRANCHES) | (target == UNBOUND)
    target = np.where(through_stub, columns.stub[edges.target], target)
    target = np.where(is_one_of(edges.kind, GOT_KINDS), columns.slot[edges.target], target)
    from_thread = thread_targets(unit, edges, meaning, layout)
    target = np.where(is_one_of(edges.kind, OFFSET_KINDS), from_thread, target)
    asked = pair_targets(unit, edges, layout.pairs)
    target = np.where(is_one_of(edges.kind, ASKING_KINDS), asked, target)
    target = np.where(is_one_of(edges.kind, _SIZES), unit.graph.symbols.size[edges.target], target)
    target = np.where(is_one_of(edges.kind, BASE_KINDS), columns.got_base, target)
    result = results(edges.kind, target + edges.addend, place)
    return np.where(GOT_RELATIVE[edges.kind] != 0, result - columns.got_base, result)


def _blocks(unit: Unit, columns: UnitLayout, edges: CarriedEdges, value: I64) -> list[tuple[int, bytes]]:
    # (address, final bytes) of each carried block that has bytes. `edges` are sorted by block.
    pieces = []
    first = np.searchsorted(edges.block, unit.carried, side="left")
    last = np.searchsorted(edges.block, unit.carried, side="right")
    for block, start, end in zip(unit.carried.tolist(), first.tolist(), last.tolist(), strict=True):
        content = unit.graph.content(block)
        if len(content):
            rows = slice(start, end)
            octets = np.frombuffer(content, dtype=np.uint8)
            final = write_fields(octets, edges.offset[rows], edges.kind[rows], value[rows])
            pieces.append((int(columns.block[block]), final.tobytes()))
    return pieces


def _unwind(units: Sequence[Unit], layout: Layout, table: UnwindTable) -> tuple[bytes, list[Refusal]]:
    # Rows of the table describe the copies: that is where the new code runs.
    target, base = np.empty(len(table.offset), dtype=np.int64), np.zeros(len(table.offset), dtype=np.int64)
    for number, columns in enumerate(layout.units):
        rows = np.flatnonzero(table.unit == number)
        base[rows] = units[number].got_base
        copy, meaning = columns.copy[table.target[rows]], columns.meaning[table.target[rows]]
        target[rows] = np.where(copy != UNBOUND, copy, meaning)
    place = table.address + table.offset
    value = results(table.kind, target + table.addend, place)
    value = np.where(GOT_RELATIVE[table.kind] != 0, value - base, value)
    missed = [
        _out_of_range(
            units[int(table.unit[row])],
            table.section,
            int(table.target[row]),
            EdgeKind(int(table.kind[row])),
            int(value[row]),
        )
        for row in np.flatnonzero(out_of_range(table.kind, value)).tolist()
    ]
    octets = np.frombuffer(table.content, dtype=np.uint8)
    return write_fields(octets, table.offset, table.kind, value).tobytes(), missed


def _gather(layout: Layout, protection: str, pieces: Sequence[tuple[int, bytes]], machine: Machine) -> bytes:
    start, end = layout.written(protection)
    # Between functions nothing runs; a trap says so to whoever gets there.
    fill, size = machine.trap if protection == "rx" else b"\0", end - start
    content = bytearray((fill * (size // len(fill) + 1))[:size])
    for address, piece in pieces:
        if start <= address < end:
            content[address - start : address - start + len(piece)] = piece
    return bytes(content)


def _misses(unit: Unit, edges: CarriedEdges, value: I64) -> list[Refusal]:
    return [
        _out_of_range(
            unit,
            unit.graph.block_name(int(edges.block[row])),
            int(edges.target[row]),
            EdgeKind(int(edges.kind[row])),
            int(value[row]),
        )
        for row in np.flatnonzero(out_of_range(edges.kind, value)).tolist()
    ]


def _out_of_range(unit: Unit, place: str, target: int, kind: EdgeKind, value: int) -> Refusal:
    width = ROWS[kind].width
    advice = "Build this file with -fPIC, which reaches far variables by a pointer."
    if width < 4:  # no compiler writes those
        advice = "Use a wider field there: the new code is not as near to everything as the old."
    return Refusal(
        "relocation-out-of-range",
        f"'{place}' reaches '{shown(unit, target)}' by a field of {8 * width} bits ({kind.name}), "
        f"which cannot hold {value:#x}",
        advice,
        unit.graph.symbols.name[target] or None,
        unit.name,
    )
