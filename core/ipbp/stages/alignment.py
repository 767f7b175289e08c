"""Running variables that lie where the new code cannot use them.

A compiler that sees a variable's definition may give it a larger alignment than its type has, and then use
instructions that need it: adding two neighbours at once with `paddq` faults on an address that is no multiple of 16
(Intel SDM vol. 2, table 2-21). The running variable stays where it is, so its place has to fit what the new object says
of its alignment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ipbp.arch.machines import machine_of
from ipbp.errors import Refusal
from ipbp.graph.model import COMMON, BlockKind
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.targets import carried_edges

MISALIGNED = "data-alignment-changed"
ONE_AT_A_TIME = ("-fno-tree-slp-vectorize",)
"""Has gcc and clang change neighbouring variables one after the other, which works wherever they lie."""
_VARIABLES = (
    BlockKind.RODATA,
    BlockKind.RELRO,
    BlockKind.DATA,
    BlockKind.BSS,
    BlockKind.TLS_DATA,
    BlockKind.TLS_BSS,
)


def misaligned(units: Sequence[Unit]) -> tuple[Refusal, ...]:
    """`data-alignment-changed` for each variable that carried code uses and whose running copy does not fit. To be
    asked once `Unit.address` and `Unit.thread` are filled in."""
    found = [
        _refusal(unit, symbol, alignment)
        for unit in units
        for symbol, alignment in _bound_variables(unit)
        if not _fits(unit, symbol, alignment)
        and (alignment > unit.graph.least_alignment or symbol in _used_aligned(unit))
    ]
    return tuple(dict.fromkeys(found))


def _bound_variables(unit: Unit) -> Iterator[tuple[int, int]]:
    """(symbol, alignment) of the variables of this unit that carried code uses and that are not carried."""
    symbols, blocks = unit.graph.symbols, unit.graph.blocks
    used = np.unique(carried_edges(unit).target).astype(np.int64)
    home = symbols.block[used]
    own = (home >= 0) & is_one_of(blocks.kind[np.maximum(home, 0)], _VARIABLES) & ~np.isin(home, unit.carried)
    for symbol, block in zip(used[own].tolist(), home[own].tolist(), strict=True):
        yield symbol, int(blocks.alignment[block])
    for symbol in used[home == COMMON].tolist():
        yield symbol, int(symbols.offset[symbol])


def _used_aligned(unit: Unit) -> set[int]:
    """Symbols at which carried code may have instructions that need it: such a one names it, or its place is in a
    register, and the function has that of the symbol."""
    graph, found = unit.graph, set[int]()
    for block in unit.carried[unit.graph.blocks.kind[unit.carried] == BlockKind.CODE].tolist():
        rows = graph.edges_of(block)
        offset, target = graph.edges.offset[rows], graph.edges.target[rows]
        for start, end, is_named in machine_of(graph.machine).aligned_operands(bytes(graph.content(block))):
            used = target[(offset >= start) & (offset < end)] if is_named else target
            found.update(used.tolist())
    return found


def _fits(unit: Unit, symbol: int, alignment: int) -> bool:
    symbols = unit.graph.symbols
    inside = int(symbols.offset[symbol]) if symbols.block[symbol] >= 0 else 0
    thread = unit.thread.get(symbol)
    if thread is not None:
        start = (thread.in_block if thread.offset is None else thread.offset) - inside
        return alignment <= thread.alignment and start % alignment == 0
    address = int(unit.address[symbol])
    return address == UNBOUND or (address - inside) % max(alignment, 1) == 0


def _refusal(unit: Unit, symbol: int, alignment: int) -> Refusal:
    name = unit.graph.symbols.name[symbol] or unit.graph.block_name(int(unit.graph.symbols.block[symbol]))
    return Refusal(
        MISALIGNED,
        f"the compiler now counts on '{name}' lying at a multiple of {alignment}, which the running one does not",
        "Edit it so that neighbouring variables are not changed together, or restart the program.",
        name,
        unit.name,
    )
