"""AArch64: where each edge kind's result stands in its instruction, and which results fit.

One row a kind, the equation beside it in the letters of the ABI (ELF for the Arm 64-bit Architecture, "Relocation"):
S symbol, A addend, P place of the field, G address of the symbol's GOT slot, TP offset from the thread pointer, Page(x)
the address of the page of 4 KiB that x is in. Kinds that this machine shares with x86-64 (ABS64, PCREL32 and others in
data) have their rows there: fields of data do not depend on the machine.
"""

from __future__ import annotations

from ipbp.arch.edge_rows import HIGHEST, EdgeRow, Encoding
from ipbp.graph.edges import EdgeKind


def _distance(kind: EdgeKind, bits: int, encoding: Encoding, alignment: int, equation: str = "S + A - P") -> EdgeRow:
    # `bits`: of the distance, those that the alignment leaves out among them.
    limit = 1 << (bits - 1)
    return EdgeRow(kind, 4, -limit, limit - 1, True, equation, encoding, alignment.bit_length() - 1, alignment)


def _page(kind: EdgeKind, equation: str, *, checked: bool = True) -> EdgeRow:
    limit = 1 << 32 if checked else HIGHEST
    return EdgeRow(kind, 4, -limit, limit - 1, True, equation, Encoding.PAGE, 12)


def _low(kind: EdgeKind, equation: str, size: int = 1, *, all_of_it: bool = False) -> EdgeRow:
    # `size`: bytes that the load or store takes; its offset counts in these.
    lowest, highest = (0, 0xFFF) if all_of_it else (-HIGHEST - 1, HIGHEST)
    return EdgeRow(kind, 4, lowest, highest, False, equation, Encoding.IMM12, size.bit_length() - 1, size)


def _move(kind: EdgeKind, group: int, equation: str, *, signed: bool, checked: bool) -> EdgeRow:
    bits = 16 * (group + 1)
    lowest, highest = -(1 << bits) if signed else 0, (1 << bits) - 1
    if not checked or group == 3:
        lowest, highest = -HIGHEST - 1, HIGHEST
    # The instruction that may become movn or movz is the first of its row, and that is the checked one.
    encoding = Encoding.IMM16_SIGNED if signed and checked else Encoding.IMM16
    return EdgeRow(kind, 4, lowest, highest, equation.endswith("- P"), equation, encoding, 16 * group)


_SIZES = (1, 2, 4, 8, 16)
_IN_SECTION = "S + A - start of its section"

ROWS = (
    EdgeRow(EdgeKind.WORD32, 4, -(1 << 31), (1 << 32) - 1, False, "S + A"),
    _distance(EdgeKind.BRANCH26, 28, Encoding.IMM26, 4),
    _distance(EdgeKind.BRANCH19, 21, Encoding.IMM19, 4),
    _distance(EdgeKind.BRANCH14, 16, Encoding.IMM14, 4),
    _distance(EdgeKind.LITERAL19, 21, Encoding.IMM19, 4),
    _distance(EdgeKind.ADDRESS21, 21, Encoding.PAGE, 1),
    _page(EdgeKind.PAGE21, "Page(S + A) - Page(P)"),
    _page(EdgeKind.PAGE21_UNCHECKED, "Page(S + A) - Page(P)", checked=False),
    _low(EdgeKind.LOW12, "S + A"),
    *(_low(EdgeKind(EdgeKind.LOW12_OF_8 + row), "S + A", size) for row, size in enumerate(_SIZES)),
    _move(EdgeKind.MOVE_G0, 0, "S + A", signed=False, checked=True),
    _move(EdgeKind.MOVE_G0_UNCHECKED, 0, "S + A", signed=False, checked=False),
    _move(EdgeKind.MOVE_G1, 1, "S + A", signed=False, checked=True),
    _move(EdgeKind.MOVE_G1_UNCHECKED, 1, "S + A", signed=False, checked=False),
    _move(EdgeKind.MOVE_G2, 2, "S + A", signed=False, checked=True),
    _move(EdgeKind.MOVE_G2_UNCHECKED, 2, "S + A", signed=False, checked=False),
    _move(EdgeKind.MOVE_G3, 3, "S + A", signed=False, checked=False),
    *(_move(EdgeKind(EdgeKind.MOVE_SIGNED_G0 + n), n, "S + A", signed=True, checked=True) for n in range(3)),
    _move(EdgeKind.MOVE_DISTANCE_G0, 0, "S + A - P", signed=True, checked=True),
    _move(EdgeKind.MOVE_DISTANCE_G0_UNCHECKED, 0, "S + A - P", signed=True, checked=False),
    _move(EdgeKind.MOVE_DISTANCE_G1, 1, "S + A - P", signed=True, checked=True),
    _move(EdgeKind.MOVE_DISTANCE_G1_UNCHECKED, 1, "S + A - P", signed=True, checked=False),
    _move(EdgeKind.MOVE_DISTANCE_G2, 2, "S + A - P", signed=True, checked=True),
    _move(EdgeKind.MOVE_DISTANCE_G2_UNCHECKED, 2, "S + A - P", signed=True, checked=False),
    _move(EdgeKind.MOVE_DISTANCE_G3, 3, "S + A - P", signed=False, checked=False),
    _page(EdgeKind.GOT_PAGE21, "Page(G) - Page(P)"),
    _low(EdgeKind.GOT_LOW12, "G", 8),
    _distance(EdgeKind.GOT_LITERAL19, 21, Encoding.IMM19, 4, "G - P"),
    _move(EdgeKind.TP_MOVE_G2, 2, "TP + A", signed=True, checked=True),
    _move(EdgeKind.TP_MOVE_G1, 1, "TP + A", signed=True, checked=True),
    _move(EdgeKind.TP_MOVE_G1_UNCHECKED, 1, "TP + A", signed=True, checked=False),
    _move(EdgeKind.TP_MOVE_G0, 0, "TP + A", signed=True, checked=True),
    _move(EdgeKind.TP_MOVE_G0_UNCHECKED, 0, "TP + A", signed=True, checked=False),
    EdgeRow(EdgeKind.TP_HIGH12, 4, 0, (1 << 24) - 1, False, "TP + A", Encoding.IMM12, 12),
    _low(EdgeKind.TP_LOW12, "TP + A", all_of_it=True),
    _low(EdgeKind.TP_LOW12_UNCHECKED, "TP + A"),
    *(
        _low(EdgeKind(EdgeKind.TP_LOW12_OF_8 + 2 * row + free), "TP + A", size, all_of_it=not free)
        for row, size in enumerate(_SIZES)
        for free in (0, 1)
    ),
    _page(EdgeKind.GOT_TP_PAGE21, "Page(G(TP)) - Page(P)"),
    _low(EdgeKind.GOT_TP_LOW12, "G(TP)", 8),
    _page(EdgeKind.TLSDESC_PAGE21, "Page(G(descriptor)) - Page(P)"),
    _low(EdgeKind.TLSDESC_LOW12_LOAD, "G(descriptor)", 8),
    _low(EdgeKind.TLSDESC_LOW12, "G(descriptor)"),
    EdgeRow(EdgeKind.SECREL_HIGH12, 4, 0, (1 << 24) - 1, False, _IN_SECTION, Encoding.IMM12, 12),
    _low(EdgeKind.SECREL_LOW12, _IN_SECTION),
    *(_low(EdgeKind(EdgeKind.SECREL_LOW12_OF_8 + row), _IN_SECTION, size) for row, size in enumerate(_SIZES)),
)
