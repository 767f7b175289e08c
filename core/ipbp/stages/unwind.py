"""Unwind rows: the part of an object's `.eh_frame` that describes carried code.

The section is a list of records (Linux Standard Base Core, "Exception Frames"; DWARF 5, section 6.4.1). A CIE holds
what several functions share, an FDE describes one function and says by a distance back in the section which CIE it
belongs to. Pointers inside the records (start of the function, personality, language-specific data) are edges in
the link graph and stay edges here, so no pointer encoding has to be understood. The unwinder reads up to a record
of length zero, which compilers leave to the linker's last object: without it the first throw runs off the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.errors import IpbpError
from ipbp.graph.layout import UnwindTable
from ipbp.graph.model import I32, LinkGraph, SideSection
from ipbp.graph.unit import Unit
from ipbp.kept import of_the_last
from ipbp.stages.function_table import function_rows

UNWIND = ".eh_frame"
TERMINATOR = bytes(4)
_EXTENDED = 0xFFFFFFFF  # the 64-bit length follows (LSB, "Extended Length")


@dataclass(frozen=True, slots=True)
class UnwindRecord:
    """A CIE (`cie` is its own offset) or an FDE. `start`, `end`: in the section; `pointer`: offset of the field that
    is zero in a CIE and the distance to it in an FDE; in an FDE the function's start follows it."""

    start: int
    end: int
    pointer: int
    cie: int

    @property
    def is_cie(self) -> bool:
        return self.cie == self.start


def unwind_section(graph: LinkGraph) -> SideSection | None:
    return next((section for section in graph.side if section.name == UNWIND and len(section.content)), None)


def unwind_records(content: memoryview, path: str) -> list[UnwindRecord]:
    """The records in order, without terminators. Errors: `unwind-malformed`."""
    return list(_records(content, path))


def carried_table(units: Sequence[Unit], address: int = 0) -> UnwindTable | None:
    """The table of all carried code at `address`, ended by a zero record; None when no carried code has a row.

    Errors: `unwind-malformed`.
    """
    tables = [table for number, unit in enumerate(units) if (table := _unit_table(number, unit)) is not None]
    if not tables:
        return None
    starts = np.cumsum([0, *(len(table.content) for table in tables)])
    return UnwindTable(
        address=address,
        content=b"".join(table.content for table in tables) + TERMINATOR,
        unit=np.concatenate([table.unit for table in tables]),
        offset=np.concatenate([table.offset + start for table, start in zip(tables, starts, strict=False)]),
        kind=np.concatenate([table.kind for table in tables]),
        target=np.concatenate([table.target for table in tables]),
        addend=np.concatenate([table.addend for table in tables]),
    )


def described_blocks(graph: LinkGraph, records: Sequence[UnwindRecord], section: SideSection) -> I32:
    """For each record the block of code that it describes; -1 for a CIE and for code of another object."""
    order = np.argsort(section.offset, kind="stable")
    fields = np.array([record.pointer + 4 for record in records], dtype=np.int64)
    if len(order) == 0 or len(fields) == 0:
        return np.full(len(fields), -1, dtype=np.int32)
    offsets = section.offset[order]
    at = np.minimum(np.searchsorted(offsets, fields), len(offsets) - 1)
    target = section.target[order[at]]
    found = (offsets[at] == fields) & np.array([not record.is_cie for record in records])
    blocks: I32 = np.where(found, np.maximum(graph.symbols.block[target], -1), -1).astype(np.int32)
    return blocks


@dataclass(frozen=True, slots=True)
class UnwindLinks:
    """What unwinding through a function needs, one row each: `block` of code, `symbol`. `is_own`: it belongs to that
    function alone (its exception table), and not to all that share a CIE (the personality)."""

    block: I32
    symbol: I32
    is_own: npt.NDArray[np.bool_]


@of_the_last(4)
def unwind_links(graph: LinkGraph) -> UnwindLinks:
    """Everything that the rows of the graph's code refer to besides that code. Errors: `unwind-malformed`."""
    section = unwind_section(graph)
    if section is None or len(section.offset) == 0:
        rows = function_rows(graph)
        own = np.ones(len(rows.block), dtype=np.bool_)
        return UnwindLinks(rows.block.astype(np.int32), rows.symbol.astype(np.int32), own)
    records = unwind_records(section.content, graph.path)
    block = described_blocks(graph, records, section)
    start = np.array([record.start for record in records], dtype=np.int64)
    function_field = np.array([record.pointer + 4 for record in records], dtype=np.int64)
    owner = np.searchsorted(start, section.offset, side="right") - 1
    own = (block[owner] >= 0) & (section.offset != function_field[owner])
    # Edges of each CIE, for every FDE that belongs to it.
    is_cie = np.array([record.is_cie for record in records], dtype=np.bool_)
    common = np.flatnonzero(is_cie[owner])
    cie = np.array([record.cie for record in records], dtype=np.int64)
    pairs = [
        (np.flatnonzero((block >= 0) & (cie == start[owner[edge]])), int(section.target[edge]))
        for edge in common.tolist()
    ]
    shared = [block[rows] for rows, _ in pairs]
    return UnwindLinks(
        np.concatenate([block[owner[own]], *shared]).astype(np.int32),
        np.concatenate([section.target[own], *(np.full(len(rows), symbol) for rows, symbol in pairs)]).astype(np.int32),
        np.concatenate([np.ones(int(own.sum()), np.bool_), *(np.zeros(len(rows), np.bool_) for rows, _ in pairs)]),
    )


def _unit_table(number: int, unit: Unit) -> UnwindTable | None:
    # The carried records of one unit, each CIE once, before the FDEs that belong to it.
    section = unwind_section(unit.graph)
    if section is None:
        return None
    records = unwind_records(section.content, unit.graph.path)
    carried = np.isin(described_blocks(unit.graph, records, section), unit.carried)
    wanted = [record for record, chosen in zip(records, carried, strict=True) if chosen]
    if not wanted:
        return None
    order = np.argsort(section.offset, kind="stable")
    offsets = section.offset[order]
    content, moved, rows, places = bytearray(), dict[int, int](), [], []
    by_start = {record.start: record for record in records}
    for record in wanted:
        for part in (_common_record(record, by_start, unit.graph.path), record):
            if part.is_cie and part.start in moved:
                continue
            moved[part.start] = place = len(content)
            content += section.content[part.start : part.end]
            if not part.is_cie:
                pointer = place + part.pointer - part.start
                content[pointer : pointer + 4] = (pointer - moved[part.cie]).to_bytes(4, "little")
            first, last = np.searchsorted(offsets, [part.start, part.end])
            rows.append(order[first:last])
            places.append(offsets[first:last] - part.start + place)
    row = np.concatenate(rows)
    return UnwindTable(
        address=0,
        content=bytes(content),
        unit=np.full(len(row), number, dtype=np.int32),
        offset=np.concatenate(places),
        kind=section.kind[row],
        target=section.target[row],
        addend=section.addend[row],
    )


def _common_record(record: UnwindRecord, by_start: Mapping[int, UnwindRecord], path: str) -> UnwindRecord:
    common = by_start.get(record.cie)
    if common is None or not common.is_cie:
        raise _malformed(path, f"the record at {record.start:#x} belongs to none")
    return common


def _records(content: memoryview, path: str) -> Iterator[UnwindRecord]:
    start = 0
    while start < len(content):
        length, header = int.from_bytes(content[start : start + 4], "little"), 4
        if length == _EXTENDED:
            length, header = int.from_bytes(content[start + 4 : start + 12], "little"), 12
        pointer, end = start + header, start + header + length
        if length == 0:
            start = end
            continue
        if length < 4 or end > len(content):
            raise _malformed(path, f"the record at {start:#x} does not fit in it")
        distance = int.from_bytes(content[pointer : pointer + 4], "little")
        yield UnwindRecord(start, end, pointer, pointer - distance if distance else start)
        start = end


def _malformed(path: str, fact: str) -> IpbpError:
    return IpbpError(
        "unwind-malformed",
        f"{path}: .eh_frame: {fact}",
        "The file is damaged or was still being written: build it again.",
    )
