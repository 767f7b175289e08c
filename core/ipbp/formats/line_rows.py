"""The source lines of one function, out of the line table of the object that has it.

Source: DWARF 5, 6.2 (versions 2 to 4 differ in the header). In an object the address that a sequence begins with is a
fixup, and what that leads to says of which function the sequence is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ipbp.errors import IpbpError
from ipbp.graph.layouts import SourcePlace
from ipbp.graph.leb import sleb, uleb
from ipbp.graph.model import LinkGraph, SideSection
from ipbp.graph.types import Waits

_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE, _SET_COLUMN, _CONST_ADD_PC, _FIXED_ADVANCE_PC = 1, 2, 3, 4, 5, 8, 9
_END_SEQUENCE, _SET_ADDRESS = 1, 2


def line_rows(graph: LinkGraph, waits: Waits, block: int) -> list[tuple[int, int]]:
    """(offset in the block, line) where the code of another line of that source begins, ascending; 0 is a line of
    another source. [] where the object has no such table. `debug-information-malformed`."""
    places = place_rows(graph, block, waits.object, waits.program)
    return [(offset, line if file == waits.file else 0) for offset, (file, line, _column) in places]


def place_rows(graph: LinkGraph, block: int, number: int = 0, program: int = 0) -> list[tuple[int, SourcePlace]]:
    """(offset in the block, place in the source) where the code of another place begins, ascending. `number`: of the
    object in a merged graph; `program`: where its table begins. Errors as above."""
    tables = [section for section in graph.side if section.name == ".debug_line"]
    if number >= len(tables):
        return []
    try:
        return sorted(_rows(tables[number], graph, program, block), key=lambda row: row[0])
    except IndexError as error:
        raise IpbpError(
            "debug-information-malformed",
            f"{graph.path}: its line table cannot be read: {error}",
            "Build it again; if that does not help, report it.",
        ) from error


def _rows(section: SideSection, graph: LinkGraph, start: int, block: int) -> Iterator[tuple[int, SourcePlace]]:
    """A sequence may be of all code of a section, of which the block is a part."""
    home, first, size = (
        int(column[block]) for column in (graph.blocks.section, graph.blocks.offset, graph.blocks.size)
    )
    for found, offset, place in _all_rows(section, graph, start):
        if found == home and 0 <= offset - first < size:
            yield offset - first, place


def _all_rows(section: SideSection, graph: LinkGraph, start: int) -> Iterator[tuple[int, int, SourcePlace]]:
    """(section of code, offset in it, place)."""
    content = bytes(section.content)
    end = start + 4 + int.from_bytes(content[start : start + 4], "little")
    version = content[start + 4]
    place = start + (8 if version == 5 else 6)
    program = place + 4 + int.from_bytes(content[place : place + 4], "little")
    place += 4
    step = content[place]
    place += 3 if version >= 4 else 2  # one operation an instruction, and whether rows begin as statements
    line_base, line_range, opcode_base = content[place] - 256 * (content[place] >> 7), *content[place + 1 : place + 3]
    lengths = content[place + 3 : place + 2 + opcode_base]
    place, address, file, line, column, home = program, 0, 1, 1, 0, -1
    while place < end:
        opcode = content[place]
        place += 1
        if opcode >= opcode_base:
            address += (opcode - opcode_base) // line_range * step
            line += line_base + (opcode - opcode_base) % line_range
            yield home, address, (file, line, column)
        elif opcode == 0:
            size, place = uleb(content, place)
            if content[place] == _SET_ADDRESS:
                home, address = _target(section, graph, place + 1)
            elif content[place] == _END_SEQUENCE:
                address, file, line, column, home = 0, 1, 1, 0, -1
            place += size
        elif opcode == _COPY:
            yield home, address, (file, line, column)
        elif opcode == _ADVANCE_PC:
            count, place = uleb(content, place)
            address += count * step
        elif opcode == _ADVANCE_LINE:
            count, place = sleb(content, place)
            line += count
        elif opcode == _SET_FILE:
            file, place = uleb(content, place)
        elif opcode == _SET_COLUMN:
            column, place = uleb(content, place)
        elif opcode == _CONST_ADD_PC:
            address += (255 - opcode_base) // line_range * step
        elif opcode == _FIXED_ADVANCE_PC:
            address += int.from_bytes(content[place : place + 2], "little")
            place += 2
        else:
            for _ in range(lengths[opcode - 1]):
                _, place = uleb(content, place)


def _target(section: SideSection, graph: LinkGraph, place: int) -> tuple[int, int]:
    """The section that the fixup at this place leads to, and how far into it."""
    rows = np.flatnonzero(section.offset == place)
    target = int(section.target[rows[0]]) if len(rows) else 0
    block = int(graph.symbols.block[target])
    if len(rows) == 0 or block < 0:
        return -1, 0
    offset = graph.blocks.offset[block] + graph.symbols.offset[target] + section.addend[rows[0]]
    return int(graph.blocks.section[block]), int(offset)
