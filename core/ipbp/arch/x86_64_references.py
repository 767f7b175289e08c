"""Where a function that is only known as machine code refers to: its direct branches and pc-relative operands.

For code without relocations (a linked image). Absolute operands of fixed executables are not found: a number in an
instruction does not say whether it is an address.
"""

from __future__ import annotations

import re

from ipbp.arch.instructions import CodeReference
from ipbp.arch.x86_64_code import displacement_width, instructions
from ipbp.graph.edges import EdgeKind

_OPERAND = re.compile(r"\[rip(?: ([+-]) (0x[0-9a-f]+|\d+))?\]")


def code_references(code: bytes, start: int) -> list[CodeReference]:
    """All of them that leave the function, in order. `start`: its load address. Kinds are BRANCH32, PCREL8 (a short
    branch) and PCREL32."""
    found = []
    for row in instructions(code):
        end = row.offset + row.size
        octets = code[row.offset : end]
        width = displacement_width(octets)
        if width:
            distance = int.from_bytes(octets[-width:], "little", signed=True)
            kind = EdgeKind.BRANCH32 if width == 4 else EdgeKind.PCREL8
            found.append(_reference(end - width, kind, start + end + distance, width))
            continue
        operand = _OPERAND.search(row.operands)
        if operand is None:
            continue
        distance = int(operand[2] or "0", 0) * (-1 if operand[1] == "-" else 1)
        field = _field(octets, distance)
        if field is not None:
            place = start + end + distance
            found.append(_reference(row.offset + field, EdgeKind.PCREL32, place, row.size - field))
    return [reference for reference in found if not start <= reference.place < start + len(code)]


def reaches_threads(code: bytes) -> bool:
    """Whether it uses the thread pointer, as all code does that reaches thread-local variables and does not ask for
    their place by a call."""
    return b"\x64" in code and any("fs:" in row.operands for row in instructions(code))


def _reference(field: int, kind: EdgeKind, place: int, after: int) -> CodeReference:
    return CodeReference(field, kind, place, EdgeKind.GOT_PCREL32, after)


def _field(octets: bytes, distance: int) -> int | None:
    """Offset of a displacement behind a ModRM byte that says `disp32(%rip)` (SDM vol. 2, table 2-2)."""
    encoded = distance.to_bytes(4, "little", signed=True)
    for at in range(2, len(octets) - 3):
        if octets[at : at + 4] == encoded and octets[at - 1] & 0xC7 == 0x05:
            return at
    return None
