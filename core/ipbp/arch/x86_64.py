"""x86-64: how wide each edge kind's field is and which results fit in it.

One row a kind, the equation beside it in the letters of the psABI (System V ABI, AMD64 supplement, "Relocation
Types"): S symbol, A addend, P place of the field, G address of the symbol's GOT slot, TP offset from the thread
pointer, Z size of the symbol, L place of the PLT entry or stub, GOT the table's base; and B where the image is loaded
("PE Format", "COFF Relocations").

A field of n bytes that is sign-extended holds -2^(8n-1) .. 2^(8n-1)-1; a zero-extended one 0 .. 2^8n-1. The 16-bit
and 8-bit absolute forms are used for both, so the psABI's linkers accept either reading, and so do the rows.
"""

from __future__ import annotations

from ipbp.arch.edge_rows import EdgeRow
from ipbp.graph.edges import EdgeKind


def _signed(kind: EdgeKind, width: int, equation: str) -> EdgeRow:
    limit = 1 << (8 * width - 1)
    return EdgeRow(kind, width, -limit, limit - 1, equation.endswith("- P"), equation)


def _either(kind: EdgeKind, width: int, equation: str) -> EdgeRow:
    return EdgeRow(kind, width, -(1 << (8 * width - 1)), (1 << (8 * width)) - 1, False, equation)


ROWS = (
    _either(EdgeKind.ABS64, 8, "S + A"),
    EdgeRow(EdgeKind.ABS32, 4, 0, (1 << 32) - 1, False, "S + A"),
    _signed(EdgeKind.ABS32S, 4, "S + A"),
    _either(EdgeKind.ABS16, 2, "S + A"),
    _either(EdgeKind.ABS8, 1, "S + A"),
    _signed(EdgeKind.PCREL64, 8, "S + A - P"),
    _signed(EdgeKind.PCREL32, 4, "S + A - P"),
    _signed(EdgeKind.PCREL16, 2, "S + A - P"),
    _signed(EdgeKind.PCREL8, 1, "S + A - P"),
    _signed(EdgeKind.BRANCH32, 4, "L + A - P"),
    _signed(EdgeKind.GOT_PCREL32, 4, "G + A - P"),
    _signed(EdgeKind.GOT_PCREL32_RELAX, 4, "G + A - P"),
    _signed(EdgeKind.GOT_PCREL32_REX_RELAX, 4, "G + A - P"),
    _signed(EdgeKind.TPOFF32, 4, "TP + A"),
    _signed(EdgeKind.TPOFF64, 8, "TP + A"),
    _signed(EdgeKind.GOT_TPOFF32, 4, "G(TP) + A - P"),
    _signed(EdgeKind.TLS_GD32, 4, "G(module, offset) + A - P"),
    _signed(EdgeKind.TLS_LD32, 4, "G(module) + A - P"),
    _signed(EdgeKind.DTPOFF32, 4, "S - start of the TLS block + A"),
    _signed(EdgeKind.DTPOFF64, 8, "S - start of the TLS block + A"),
    EdgeRow(EdgeKind.SIZE32, 4, 0, (1 << 32) - 1, False, "Z + A"),
    EdgeRow(EdgeKind.SIZE64, 8, 0, (1 << 64) - 1, False, "Z + A"),
    _signed(EdgeKind.GOT_BASE_PCREL32, 4, "GOT + A - P"),
    _signed(EdgeKind.GOT_BASE_PCREL64, 8, "GOT + A - P"),
    _signed(EdgeKind.GOT_OFFSET64, 8, "S + A - GOT"),
    _signed(EdgeKind.GOT_SLOT64, 8, "G + A - GOT"),
    _signed(EdgeKind.GOT_PCREL64, 8, "G + A - P"),
    _signed(EdgeKind.PLT_OFFSET64, 8, "L + A - GOT"),
    _signed(EdgeKind.TLSDESC_PCREL32, 4, "G(descriptor) + A - P"),
    EdgeRow(EdgeKind.TLSDESC_CALL, 0, 0, 0, False, "none"),
    _signed(EdgeKind.GOT_SLOT32, 4, "G + A - GOT"),
    _signed(EdgeKind.GOT_PCREL32_REX2_RELAX, 4, "G + A - P"),
    EdgeRow(EdgeKind.IMAGE32, 4, 0, (1 << 32) - 1, False, "S + A - B"),
    EdgeRow(EdgeKind.SECTION16, 2, 0, (1 << 16) - 1, False, "number of the section of S"),
    EdgeRow(EdgeKind.SECREL32, 4, 0, (1 << 32) - 1, False, "S + A - start of its section"),
)
