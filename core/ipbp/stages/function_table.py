"""Unwind rows of Windows for x86-64: the part of an object's `.pdata` that describes carried code.

A row is three distances from the image's start: to a function's first byte, behind its last one, and to what undoes its
prologue, in `.xdata` ("x64 exception handling", RUNTIME_FUNCTION and UNWIND_INFO). The system looks for a row by
halving, so they are in the order of their addresses. A function without one counts as a leaf, so new code that has one
needs it: exceptions, and longjmp as MinGW has it, unwind by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.edges import EdgeKind
from ipbp.graph.layout import UnwindTable
from ipbp.graph.model import I64, LinkGraph, SideSection
from ipbp.graph.unit import Unit
from ipbp.kept import of_the_last

TABLE = ".pdata"
ROW_SIZE = 12
_VERSION = 0b111  # of the first byte of a description; the other bits are UNW_FLAG_*


@dataclass(frozen=True, slots=True)
class FunctionRows:
    """One row each: the code in `block` from `start` on, `size` bytes, is described at `symbol` + `addend`."""

    block: I64
    start: I64
    size: I64
    symbol: I64
    addend: I64


@of_the_last(4)
def function_rows(graph: LinkGraph) -> FunctionRows:
    """All rows of an object; none of other formats and machines."""
    found = []
    if graph.machine == "x86_64":
        found = [_rows(graph, section) for section in graph.side if section.name.startswith(TABLE)]
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)] if found else [np.empty(0, np.int64)] * 5
    return FunctionRows(*columns)


def _rows(graph: LinkGraph, section: SideSection) -> tuple[I64, ...]:
    starts = section.offset[section.offset % ROW_SIZE == 0]
    fields = np.searchsorted(section.offset, starts[:, None] + np.array([0, 4, 8]))
    whole = (fields[:, -1:] < len(section.offset)).all(axis=1)
    first, last, told = fields[whole].T if whole.any() else np.empty((3, 0), dtype=np.int64)
    home, blocks = graph.symbols.block, graph.blocks
    # An end may be the start of the next function; so it is a place in the section.
    place = [
        blocks.offset[home[section.target[row]]] + graph.symbols.offset[section.target[row]] + section.addend[row]
        for row in (first, last)
    ]
    block = home[section.target[first]].astype(np.int64)
    start = place[0] - blocks.offset[block]
    symbol = section.target[told].astype(np.int64)
    return block, start, place[1] - place[0], symbol, section.addend[told]


def function_table(units: Sequence[Unit], places: Sequence[I64]) -> UnwindTable | None:
    """The rows of all carried code, `places` saying where each unit's blocks go; None when no carried code has one."""
    rows = []
    for number, unit in enumerate(units):
        own, anchor = function_rows(unit.graph), unit.graph.blocks.anchor
        for row in np.flatnonzero(np.isin(own.block, unit.carried)).tolist():
            block, start, end = int(own.block[row]), int(own.start[row]), int(own.start[row] + own.size[row])
            described = int(own.symbol[row]), int(own.addend[row])
            code = int(anchor[block])
            rows.append((int(places[number][block]) + start, number, ((code, start), (code, end), described)))
    if not rows:
        return None
    fields = [(number, *field) for _, number, row in sorted(rows) for field in row]
    numbers, target, addend = (np.array(column, dtype=np.int64) for column in zip(*fields, strict=True))
    return UnwindTable(
        address=0,
        content=bytes(ROW_SIZE * len(rows)),
        unit=numbers.astype(np.int32),
        offset=4 * np.arange(len(fields), dtype=np.int64),
        kind=np.full(len(fields), EdgeKind.IMAGE32, dtype=np.uint8),
        target=target.astype(np.int32),
        addend=addend,
        section=TABLE,
        rows=len(rows),
    )


def description_refusals(unit: Unit) -> list[Refusal]:
    """`unwind-data-not-carried` for each carried function whose description says more than how to undo its prologue: it
    has handlers of exceptions, which may be named by their places in its code, or is the continuation of another row.
    """
    graph, own, found = unit.graph, function_rows(unit.graph), dict[str, Refusal]()
    for row in np.flatnonzero(np.isin(own.block, unit.carried)).tolist():
        symbol = int(own.symbol[row])
        at = int(graph.symbols.offset[symbol] + own.addend[row])
        described = int(graph.symbols.block[symbol])
        head = graph.content(described)[at : at + 1] if described >= 0 else b""
        if len(head) != 1 or head[0] & ~_VERSION:
            name = graph.block_name(int(own.block[row]))
            found[name] = Refusal(
                "unwind-data-not-carried",
                f"'{name}' has handlers of exceptions, or is described in several pieces, which ipbp does not carry "
                "into programs of Windows so far",
                "Leave this function out of the edit, or restart the program.",
                name,
                unit.name,
            )
    return list(found.values())
