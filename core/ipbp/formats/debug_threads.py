"""What the debug information of a patch says of thread-local variables.

A location is an offset in the block of the file that has it (DWARF 5, 2.5.1.3, DW_OP_form_tls_address), and a patch
has no block: what gdb meets in a file that is no module of the loader's, it counts from the block of module 1
(linux-thread-db.c). So it is told how far the variable is from there; lldb says that it cannot tell. New variables have
no place yet. Where there is no such number, as in a plugin whose threads have its variables anywhere, the location is
one that is never mapped: an error is better than another variable's value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ipbp.graph.edges import EdgeKind
from ipbp.graph.layout import ThreadImage, UnitLayout
from ipbp.graph.model import SideSection
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND, Unit

_KINDS = (EdgeKind.DTPOFF32, EdgeKind.DTPOFF64)
_NOWHERE = {4: 0x7FFFFFFF, 8: 1 << 62}  # the latter makes no address that a processor takes (Intel SDM vol. 1, 3.3.7.1)
_CONST8U = 0x0E  # DW_OP_const8u (DWARF 5, 7.7.1)


@dataclass(frozen=True, slots=True)
class ThreadField:
    """`width` bytes at `offset` in a section. `is_late`: the place of the block that a patch brings is to be added."""

    offset: int
    width: int
    value: int
    is_late: bool

    @property
    def content(self) -> bytes:
        return self.value.to_bytes(self.width, "little", signed=True)


def thread_fields(
    unit: Unit, columns: UnitLayout, section: SideSection, brought: ThreadImage | None
) -> list[ThreadField]:
    """The fields of a unit's debug section that are about thread-local variables. `brought`: the new ones."""
    found = []
    for row in np.flatnonzero(is_one_of(section.kind, _KINDS)).tolist():
        offset, width = int(section.offset[row]), _width(section, row)
        address = int(columns.meaning[section.target[row]])
        place = None
        if address != UNBOUND:
            address += int(section.addend[row])
            place = unit.shown.place(address)
        base = unit.shown.base
        if width == 8 and brought is not None and base is not None and brought.holds(address):
            found.append(ThreadField(offset, width, address - brought.start - base, True))
        elif place is None or (width == 4 and place < 0):  # narrow ones are without a sign
            found.append(ThreadField(offset, width, _NOWHERE[width], False))
        else:
            found.append(ThreadField(offset, width, place, False))
    return found


def _width(section: SideSection, row: int) -> int:
    """gcc writes eight bytes, of which its assembler relocates the lower four."""
    start = int(section.offset[row])
    return 8 if section.kind[row] == EdgeKind.DTPOFF64 or section.content[start - 1] == _CONST8U else 4
