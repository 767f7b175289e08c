"""The debug information of a patch: every unit's `.debug_*` sections in one, with their addresses filled in.

A debugger needs the lines, types and variables of the new code in the patch file itself. Sections of one name are
put one behind the other, as a linker does, and every edge is computed: into another debug section, the place where
that went; to carried code or data, its copy; to a variable that existed, where it lives. Code that is not carried
runs elsewhere and is described elsewhere: its addresses become 0, which debuggers take as "not in this file"
(binutils and lld do the same with discarded sections). In `.debug_ranges` and `.debug_loc`, where a pair of zeros
would end the list (DWARF 4, 2.17.3 and 2.6.2), they become 1; in `.debug_rnglists` the range is emptied as well.
`.debug_aranges` is left out: it has no way to say "empty", and debuggers find the same in the units themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.arch.fields import GOT_RELATIVE, out_of_range, write_fields
from ipbp.errors import IpbpError
from ipbp.formats.debug_ranges import empty_dead_ranges
from ipbp.formats.debug_threads import thread_fields
from ipbp.graph.edges import EdgeKind
from ipbp.graph.layout import LateField, Layout, UnitLayout
from ipbp.graph.model import I64, SIDE_BASE, BlockKind, SideSection
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND, Unit

_LISTS_ENDED_BY_ZEROS = (".debug_ranges", ".debug_loc")
_LEFT_OUT = (".debug_aranges",)
_THREAD_LOCAL = (EdgeKind.DTPOFF32, EdgeKind.DTPOFF64)
_ADDRESS_HEADER = 8  # of a contribution to .debug_addr (DWARF 5, 7.27)


@dataclass(frozen=True, slots=True)
class DebugSection:
    name: str
    content: bytes
    alignment: int
    flags: int
    entry_size: int
    late: tuple[LateField, ...] = ()
    """Fields of new thread-local variables, by their offset in `content`."""


def merge_debug(units: Sequence[Unit], layout: Layout) -> tuple[DebugSection, ...]:
    """The merged sections by name. Errors: `debug-too-large` when an offset does not fit its field."""
    places = _places(units)
    merged: dict[str, bytearray] = {}
    first: dict[str, SideSection] = {}
    late: dict[str, list[LateField]] = {}
    for number, (unit, columns) in enumerate(zip(units, layout.units, strict=True)):
        is_code = _is_code(unit)
        # Per symbol: where debug information says it is. Code that is not carried is described by another file.
        known = np.where(is_code, columns.copy, columns.meaning)
        bases = np.array([places.get((number, index), 0) for index in range(len(unit.graph.side))], dtype=np.int64)
        for index, section in enumerate(unit.graph.side):
            if (number, index) not in places:
                continue
            content = _fill(unit, columns, section, bases, known, is_code)
            if section.name == ".debug_rnglists":
                dead = (known == UNBOUND) & is_code
                content = empty_dead_ranges(content, _dead_fields(section, dead), _dead_indices(unit, dead))
            place, threads = places[number, index], thread_fields(unit, columns, section, layout.thread)
            whole = merged.setdefault(section.name, bytearray())
            whole += bytes(place - len(whole)) + content
            for row in threads:
                whole[place + row.offset : place + row.offset + row.width] = row.content
            waiting = [LateField(place + row.offset, row.width, row.value) for row in threads if row.is_late]
            late.setdefault(section.name, []).extend(waiting)
            first.setdefault(section.name, section)
    return tuple(
        DebugSection(
            name, bytes(content), first[name].alignment, first[name].flags, first[name].entry_size, tuple(late[name])
        )
        for name, content in sorted(merged.items())
    )


def _places(units: Sequence[Unit]) -> dict[tuple[int, int], int]:
    # (unit, side section) -> offset in the merged section.
    place: dict[tuple[int, int], int] = {}
    ends: dict[str, int] = {}
    for number, unit in enumerate(units):
        for index, section in enumerate(unit.graph.side):
            if section.name.startswith(".debug_") and section.name not in _LEFT_OUT:
                alignment = max(section.alignment, 1)
                place[number, index] = -(-ends.get(section.name, 0) // alignment) * alignment
                ends[section.name] = place[number, index] + len(section.content)
    return place


def _fill(
    unit: Unit, columns: UnitLayout, section: SideSection, bases: I64, places: I64, is_code: npt.NDArray[np.bool_]
) -> bytes:
    # `places`: of each symbol, for debug information.
    symbols = unit.graph.symbols
    home = symbols.block[section.target]
    known = places[section.target]
    tombstone = 1 if section.name in _LISTS_ENDED_BY_ZEROS else 0
    missing = np.where(is_code[section.target], tombstone, 0)
    value = np.where(known == UNBOUND, missing, known + section.addend)
    # Values that large-model code computes from the table's base: distances, or nothing where it has no base.
    distance = np.where((known == UNBOUND) | (columns.got_base == UNBOUND), 0, value - columns.got_base)
    value = np.where(GOT_RELATIVE[section.kind] == 1, distance, value)
    # Of thread-local variables the initial values have addresses; see `debug_threads`.
    value = np.where(is_one_of(section.kind, _THREAD_LOCAL), 0, value)
    to_side = home <= SIDE_BASE
    if to_side.any():
        in_side = symbols.offset[section.target[to_side]] + section.addend[to_side]
        value[to_side] = bases[SIDE_BASE - home[to_side]] + in_side
    if out_of_range(section.kind, value).any():
        raise IpbpError(
            "debug-too-large",
            f"{unit.name}: a reference in {section.name} does not fit its field",
            "Build with -gdwarf64, or with less debug information.",
        )
    octets = np.frombuffer(section.content, dtype=np.uint8)
    return write_fields(octets, section.offset, section.kind, value).tobytes()


def _is_code(unit: Unit) -> npt.NDArray[np.bool_]:
    home, kind = unit.graph.symbols.block, unit.graph.blocks.kind
    result: npt.NDArray[np.bool_] = home >= 0
    if len(kind):
        result = result & (kind[np.maximum(home, 0)] == BlockKind.CODE)
    return result


def _dead_fields(section: SideSection, dead: npt.NDArray[np.bool_]) -> set[int]:
    # `dead`: of each symbol.
    return set(section.offset[dead[section.target]].tolist())


def _dead_indices(unit: Unit, dead: npt.NDArray[np.bool_]) -> set[int]:
    # Entries of the object's .debug_addr; with several contributions an index alone does not say which is meant.
    tables = [section for section in unit.graph.side if section.name == ".debug_addr"]
    if len(tables) != 1 or int.from_bytes(tables[0].content[:4], "little") + 4 != len(tables[0].content):
        return set()
    return {(offset - _ADDRESS_HEADER) // 8 for offset in _dead_fields(tables[0], dead)}
