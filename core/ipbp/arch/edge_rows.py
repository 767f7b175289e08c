"""What stands beside an edge kind: how wide its field is, which results fit, which bits of an instruction hold them."""

from __future__ import annotations

from dataclasses import dataclass

from ipbp.graph.columns import ColumnEnum
from ipbp.graph.edges import EdgeKind

HIGHEST = (1 << 63) - 1
"""A result is a signed 64-bit number: what a field of eight bytes may hold always fits."""


class Encoding(ColumnEnum):
    """Where in its field a result stands. WHOLE: all of it, little-endian. The others are fields of four bytes that
    hold an A64 instruction, with bits of the result in it (Arm Architecture Reference Manual, chapter C6)."""

    WHOLE = 0
    IMM26 = 1  # bits 25:0 of b and bl
    IMM19 = 2  # bits 23:5 of b.cond, cbz and ldr (literal)
    IMM14 = 3  # bits 18:5 of tbz
    IMM12 = 4  # bits 21:10 of add and of loads and stores
    IMM16 = 5  # bits 20:5 of movz and movk
    IMM16_SIGNED = 6  # the same, and bit 30: movz for a positive number, movn for a negative one
    PAGE = 7  # bits 30:29 and 23:5 of adr and adrp


@dataclass(frozen=True, slots=True)
class EdgeRow:
    """`width`: bytes of the field, 0 for a kind that changes none. `lowest` and `highest`: results that fit.
    `pc_relative`, `got_relative`: the equation ends in `- P`, in the image's base (`- GOT`, `- B`).
    `shift`: how many low bits of the result are
    left out; `alignment`: what the result must be a multiple of."""

    kind: EdgeKind
    width: int
    lowest: int
    highest: int
    pc_relative: bool
    equation: str
    encoding: Encoding = Encoding.WHOLE
    shift: int = 0
    alignment: int = 1

    @property
    def got_relative(self) -> bool:
        return self.equation.endswith(("- GOT", "- B"))

    @property
    def is_of_pages(self) -> bool:
        """Whether it is a distance between pages of 4 KiB: the low twelve bits of both ends do not count."""
        return self.equation.startswith("Page(")
