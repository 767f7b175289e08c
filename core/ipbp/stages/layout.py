"""Layout: gives every carried byte its address, and every far or indirect target its slot and stub.

One pass over the blocks and one over the edges. Blocks go to the part of the arena with their protection, code at
16 bytes as compilers align it. Then every edge is asked what it needs (`stages.stubs`), and behind it all come the
unwind rows of the carried code. Beyond this point no size changes.

What cannot be given a place is refused here by name, all of it at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipbp.arch.machines import machine_of
from ipbp.errors import Refusal
from ipbp.graph.layout import Layout, Registration, UnitLayout, Unwinder
from ipbp.graph.model import COMMON, I64, Binding, BlockKind, SymbolType
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.arena import Arena
from ipbp.stages.function_table import ROW_SIZE, description_refusals, function_rows, function_table
from ipbp.stages.got_base import place_bases, with_base
from ipbp.stages.placer import Placer
from ipbp.stages.stubs import SLOT_SIZE, UnitTargets, place_stubs, shown, target_refusals
from ipbp.stages.targets import CarriedEdges, Exports, carried_edges, copies, exported, go_by_name, meanings
from ipbp.stages.thread_image import THREAD_CHUNK, THREAD_EXTRA, align_threads, thread_image
from ipbp.stages.thread_pairs import PAIR_SIZE, place_pairs
from ipbp.stages.unwind import carried_table, unwind_section

CODE_ALIGNMENT = 16
UNWIND_RECORD_SIZE = 64  # libgcc's struct object is 48 bytes (unwind-dw2-fde.h); the rest is a margin

_CHUNK_OF: Mapping[BlockKind, str] = {
    BlockKind.CODE: ".text",
    BlockKind.RODATA: ".rodata",
    BlockKind.RELRO: ".data.rel.ro",
    BlockKind.DATA: ".data",
    BlockKind.BSS: ".bss",
    BlockKind.TLS_DATA: THREAD_CHUNK,
    BlockKind.TLS_BSS: THREAD_CHUNK,
}
_PROTECTION_OF = {".text": "rx", ".rodata": "r", ".data.rel.ro": "r", THREAD_CHUNK: "r", ".data": "rw", ".bss": "rw"}


@dataclass(frozen=True, slots=True)
class Group:
    """The units of a patch that go to one arena, and the unwinders that their code may meet. `library`: the file
    that will make room in the threads when the units bring thread-local variables."""

    units: Sequence[Unit]
    arena: Arena
    unwinders: Sequence[Unwinder] = ()
    library: str = ""


def layout(units: Sequence[Unit], arena: Arena, library: str = "") -> Layout:
    """The layout of a patch that needs one arena only."""
    return layouts([Group(units, arena, library=library)])[0]


def layouts(groups: Sequence[Group]) -> tuple[Layout, ...]:
    """Where everything goes, group by group; units of one group may use what another one brings. Refusals, in the
    results: `new-initialiser`, `new-thread-local`, `duplicate-symbol`, `thread-local`,
    `size-of-outside-symbol`, `undefined-symbol`, `out-of-reach-data`, `unwind-data-not-carried`.

    Errors: `arena-full` (ask `stages.arena.room` with `demand` first), `unwind-malformed`.
    """
    placed = [_place(group) for group in groups]
    units = [unit for group in groups for unit in group.units]
    exports, duplicates = exported(units, [column for row in placed for column in row.copy])
    result = [_finish(row, exports) for row in placed]
    return (replace(result[0], refusals=(*duplicates, *result[0].refusals)), *result[1:]) if result else ()


@dataclass(frozen=True, slots=True)
class _Placed:
    """A group whose carried bytes have their addresses. Columns for each unit: `blocks` and `copy` as in
    `UnitLayout`."""

    group: Group
    placer: Placer
    edges: list[CarriedEdges]
    blocks: list[I64]
    copy: list[I64]


def _place(group: Group) -> _Placed:
    units, placer = group.units, Placer(group.arena)
    edges = [carried_edges(unit) for unit in units]
    blocks = _place_blocks(units, placer)
    copy = _place_commons(units, edges, [copies(*pair) for pair in zip(units, blocks, strict=True)], placer)
    return _Placed(group, placer, edges, blocks, copy)


def _finish(placed: _Placed, exports: Exports) -> Layout:
    # With every address known, what each edge needs, then the unwind rows.
    units, arena, placer = placed.group.units, placed.group.arena, placed.placer
    bases = place_bases(units, placed.edges, placer)
    targets = [
        UnitTargets(unit, rows, with_base(unit, meanings(unit, column, exports), base), go_by_name(rows, column))
        for unit, rows, column, base in zip(units, placed.edges, placed.copy, bases, strict=True)
    ]
    reached, slots, stubs = place_stubs(targets, arena, placer)
    pairs = place_pairs(units, placed.edges, placer)
    thread = thread_image(placer, placed.group.library)
    unwind = carried_table(units) or function_table(units, placed.blocks)
    registrations: list[Registration] = []
    if unwind is not None:
        unwind = replace(unwind, address=placer.put(unwind.section, len(unwind.content), 8))
        registrations = [
            Registration(row, placer.put(".bss", UNWIND_RECORD_SIZE, 16)) for row in placed.group.unwinders
        ]
    columns = zip(placed.blocks, placed.copy, targets, reached, bases, strict=True)
    result = Layout(
        units=tuple(UnitLayout(b, c, row.meaning, cells.slot, cells.stub, base) for b, c, row, cells, base in columns),
        chunks=placer.chunks(),
        slots=slots,
        stubs=stubs,
        unwind=unwind,
        registrations=tuple(registrations),
        refusals=(),
        thread=thread,
        pairs=pairs,
    )
    refusals = (*_kind_refusals(units), *target_refusals(targets, arena, thread), *_unwind_refusals(units, result))
    return replace(result, refusals=refusals)


def demand(units: Sequence[Unit], unwinders: Sequence[Unwinder] = ()) -> dict[str, int]:
    """Bytes that `layout` needs at most, by protection: as if every edge needed a slot and a stub."""
    need = {"rx": 0, "r": THREAD_EXTRA, "rw": UNWIND_RECORD_SIZE * len(unwinders) + 64}
    for unit in units:
        rows, symbols = unit.graph.blocks, unit.graph.symbols
        for kind, chunk in _CHUNK_OF.items():
            chosen = unit.carried[rows.kind[unit.carried] == kind]
            padded = rows.size[chosen] + np.maximum(rows.alignment[chosen], CODE_ALIGNMENT)
            need[_PROTECTION_OF[chunk]] += int(padded.sum())
        edges = len(carried_edges(unit).kind)
        commons = symbols.block == COMMON
        section = unwind_section(unit.graph)
        need["rx"] += machine_of(unit.graph.machine).stub_size * (edges + 1)
        table = len(section.content) if section else ROW_SIZE * len(function_rows(unit.graph).block)
        need["r"] += PAIR_SIZE * (edges + 1) + (table + 64 if table else 0)
        tentative = int((symbols.size[commons] + symbols.offset[commons]).sum())
        need["r"] += tentative
        need["rw"] += SLOT_SIZE * edges + tentative
    return need


def _place_blocks(units: Sequence[Unit], placer: Placer) -> list[I64]:
    # Kind by kind over all units, because a chunk is closed once the next one has begun.
    addresses = [np.full(len(unit.graph.blocks), UNBOUND, dtype=np.int64) for unit in units]
    for kind, chunk in _CHUNK_OF.items():
        if kind == BlockKind.TLS_DATA:  # the first of the chunk
            align_threads(units, placer)
        least = CODE_ALIGNMENT if kind == BlockKind.CODE else 1
        for unit, column in zip(units, addresses, strict=True):
            rows = unit.graph.blocks
            for block in unit.carried[rows.kind[unit.carried] == kind].tolist():
                column[block] = placer.put(chunk, int(rows.size[block]), max(int(rows.alignment[block]), least))
    return addresses


def _place_commons(
    units: Sequence[Unit], edges: Sequence[CarriedEdges], copy: Sequence[I64], placer: Placer
) -> list[I64]:
    # Tentative definitions that are new get zeroed memory, one for each name of an image, as large as the largest.
    placed = [column.copy() for column in copy]
    defined = {
        (unit.image, unit.graph.symbols.name[symbol])
        for unit, column in zip(units, copy, strict=True)
        for symbol in np.flatnonzero((column != UNBOUND) & (unit.graph.symbols.binding != Binding.LOCAL)).tolist()
    }
    wanted: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for number, (unit, rows) in enumerate(zip(units, edges, strict=True)):
        used = np.unique(rows.target)
        used = used[(unit.graph.symbols.block[used] == COMMON) & (unit.address[used] == UNBOUND)]
        for symbol in used.tolist():
            wanted.setdefault((unit.image, unit.graph.symbols.name[symbol]), []).append((number, symbol))
    for name in sorted(wanted.keys() - defined):
        size = max(int(units[number].graph.symbols.size[symbol]) for number, symbol in wanted[name])
        alignment = max(int(units[number].graph.symbols.offset[symbol]) for number, symbol in wanted[name])
        number, symbol = wanted[name][0]
        is_thread_local = units[number].graph.symbols.type[symbol] == SymbolType.TLS
        address = placer.put(THREAD_CHUNK if is_thread_local else ".bss", size, max(alignment, 1))
        for number, symbol in wanted[name]:
            placed[number][symbol] = address
    return placed


def _kind_refusals(units: Sequence[Unit]) -> list[Refusal]:
    return [
        _needs_the_loader(unit, block)
        for unit in units
        for block in unit.carried.tolist()
        if int(unit.graph.blocks.kind[block]) not in _CHUNK_OF
    ]


def _unwind_refusals(units: Sequence[Unit], result: Layout) -> list[Refusal]:
    table = result.unwind
    if table is None:
        return []
    found = [refusal for unit in units for refusal in description_refusals(unit)]
    for number, target in dict.fromkeys(zip(table.unit.tolist(), table.target.tolist(), strict=True)):
        columns = result.units[number]
        if columns.copy[target] == UNBOUND and columns.meaning[target] == UNBOUND:
            found.append(_unwind_not_carried(units[number], target))
    return found


def _needs_the_loader(unit: Unit, block: int) -> Refusal:
    name = unit.graph.block_name(block)
    if unit.graph.blocks.kind[block] == BlockKind.TLS_DESCRIPTORS:
        return Refusal(
            "new-thread-local",
            f"the thread-local variable '{name}' is new, and the loader makes room for these when it loads an image",
            "Make it an ordinary variable, or restart the program.",
            name,
            unit.name,
        )
    return Refusal(
        "new-initialiser",
        f"'{name}' runs before main or at exit, and the program has started",
        "Call the new initialisation from code that runs again, or restart the program.",
        name,
        unit.name,
    )


def _unwind_not_carried(unit: Unit, symbol: int) -> Refusal:
    name = shown(unit, symbol)
    return Refusal(
        "unwind-data-not-carried",
        f"the unwind rows of the changed code refer to '{name}', which is not part of the patch",
        "Report this: the selection of what a patch carries is not complete.",
        name,
        unit.name,
    )
