"""How one function's frame is unwound: the rows of `.eh_frame` for it, in a linked file.

The record of a function is found by the sorted table of `.eh_frame_hdr` (Linux Standard Base Core, "Exception Frames")
where the file has one. A patch's file has none and few records. What the record says is pyelftools' to decode
(DWARF 5, 6.4.2), from a section that holds nothing but it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from elftools.common.exceptions import DWARFError
from elftools.dwarf.callframe import FDE, CallFrameInfo, CFARule, RegisterRule
from elftools.dwarf.structs import DWARFStructs

from ipbp.formats.elf_linked import LinkedFile
from ipbp.graph.frames import UnwindRow

_TABLE = 0x3B  # DW_EH_PE_datarel | DW_EH_PE_sdata4: what linkers write
_EXTENDED = 0xFFFFFFFF  # the 64-bit length follows
_LARGEST_SEARCHED = 1 << 20  # bytes of records that are gone through one by one


@dataclass(frozen=True, slots=True)
class _Record:
    """A CIE (`common` is its own start) or an FDE. `pointer`: of the field that leads to the CIE."""

    start: int
    end: int
    pointer: int
    common: int


def unwind_rows(file: LinkedFile, address: int) -> tuple[UnwindRow, ...]:
    """The rows of the function that begins at this link address; () when it is not described."""
    section = file.section(".eh_frame")
    if section is None:
        return ()
    content = file.section_content(section)
    try:
        found = _from_table(file, content, section.address, address)
        if found is None:
            found = _by_search(content, section.address, address)
        return tuple(_rows(found)) if found is not None else ()
    except (DWARFError, ValueError, IndexError, KeyError):
        return ()  # not described in a way that is understood


def _from_table(file: LinkedFile, content: memoryview, start: int, address: int) -> FDE | None:
    section = file.section(".eh_frame_hdr")
    header = file.section_content(section) if section is not None else b""
    if section is None or len(header) < 12 or header[0] != 1 or header[3] != _TABLE or header[2] != 0x03:
        return None
    count = int.from_bytes(header[8:12], "little")
    table = np.frombuffer(header, "<i4", 2 * count, 12).reshape(-1, 2)
    row = int(np.searchsorted(table[:, 0], address - section.address))
    if row >= count or int(table[row, 0]) != address - section.address:
        return None
    place = int(table[row, 1]) + section.address - start
    return _decoded(content, _record_at(content, place))


def _by_search(content: memoryview, start: int, address: int) -> FDE | None:
    place = 0
    while place + 4 < min(len(content), _LARGEST_SEARCHED):
        record = _record_at(content, place)
        place = record.end
        if record.common == record.start or record.end == record.pointer:
            continue
        field = record.pointer + 4  # pc-relative in everything that compilers write for x86-64
        distance = int.from_bytes(content[field : field + 4], "little", signed=True)
        if start + field + distance == address:
            return _decoded(content, record)
    return None


def _record_at(content: memoryview, start: int) -> _Record:
    length, header = int.from_bytes(content[start : start + 4], "little"), 4
    if length == _EXTENDED:
        length, header = int.from_bytes(content[start + 4 : start + 12], "little"), 12
    pointer = start + header
    distance = int.from_bytes(content[pointer : pointer + 4], "little")
    return _Record(start, start + header + length, pointer, pointer - distance if distance else start)


def _decoded(content: memoryview, record: _Record) -> FDE | None:
    common = _record_at(content, record.common)
    first, second = bytes(content[common.start : common.end]), bytearray(content[record.start : record.end])
    pointer = record.pointer - record.start
    second[pointer : pointer + 4] = (len(first) + pointer).to_bytes(4, "little")
    section = first + bytes(second)
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=8)
    entries = CallFrameInfo(BytesIO(section), len(section), 0, structs, for_eh_frame=True).get_entries()
    return next((entry for entry in entries if isinstance(entry, FDE)), None)


def _rows(entry: FDE) -> Iterator[UnwindRow]:
    first = entry.header["initial_location"]
    for row in entry.get_decoded().table:
        rule: CFARule = row["cfa"]
        base, distance = (-1, 0) if rule.expr is not None else (rule.reg, rule.offset)
        saved, lost = {}, set()
        for register, where in row.items():
            if isinstance(register, int) and isinstance(where, RegisterRule):
                if where.type == RegisterRule.OFFSET:
                    saved[register] = int(where.arg)
                elif where.type != RegisterRule.SAME_VALUE:
                    lost.add(register)
        yield UnwindRow(row["pc"] - first, base, distance, saved, frozenset(lost))
