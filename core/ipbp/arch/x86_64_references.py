"""Where a function that is only known as machine code refers to: its direct branches and pc-relative operands.

For code without relocations (a linked image). Absolute operands of fixed executables are not found: a number in an
instruction does not say whether it is an address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ipbp.arch.x86_64_code import displacement_width, instructions
from ipbp.graph.edges import EdgeKind

_OPERAND = re.compile(r"\[rip(?: ([+-]) (0x[0-9a-f]+|\d+))?\]")


@dataclass(frozen=True, slots=True)
class CodeReference:
    """A pc-relative field at `field`; `kind` is BRANCH32, PCREL8 (a short branch) or PCREL32. `place`: the offset in
    the code, or outside of it, that the processor goes to or reads; `after`: bytes from the field to the
    instruction's end."""

    field: int
    kind: EdgeKind
    place: int
    after: int


def code_references(code: bytes) -> list[CodeReference]:
    """All of them that leave the function, in order."""
    found = []
    for row in instructions(code):
        end = row.offset + row.size
        octets = code[row.offset : end]
        width = displacement_width(octets)
        if width:
            distance = int.from_bytes(octets[-width:], "little", signed=True)
            kind = EdgeKind.BRANCH32 if width == 4 else EdgeKind.PCREL8
            found.append(CodeReference(end - width, kind, end + distance, width))
            continue
        operand = _OPERAND.search(row.operands)
        if operand is None:
            continue
        distance = int(operand[2] or "0", 0) * (-1 if operand[1] == "-" else 1)
        field = _field(octets, distance)
        if field is not None:
            found.append(CodeReference(row.offset + field, EdgeKind.PCREL32, end + distance, row.size - field))
    return [reference for reference in found if not 0 <= reference.place < len(code)]


def _field(octets: bytes, distance: int) -> int | None:
    """Offset of a displacement behind a ModRM byte that says `disp32(%rip)` (SDM vol. 2, table 2-2)."""
    encoded = distance.to_bytes(4, "little", signed=True)
    for at in range(2, len(octets) - 3):
        if octets[at : at + 4] == encoded and octets[at - 1] & 0xC7 == 0x05:
            return at
    return None
