"""AArch64: how compilers reach a thread-local variable, and what a linker makes of it that knows the answer.

Initial exec loads the offset from the thread pointer out of a cell (`adrp`, `ldr`); a descriptor is asked by a call
(`adrp`, `ldr`, `add`, `blr`; the ABI fixes the registers). Once the offset is known, two instructions of these make it
(`movz`, `movk`) and the others do nothing (ELF for the Arm 64-bit Architecture, "Relaxations for TLS"). Each
instruction is rewritten on its own, so that the compiler may put others between them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipbp.arch.aarch64_code import NOP, WORD
from ipbp.arch.rewriting import NONE, Rewriting
from ipbp.graph.edges import EdgeKind

MOVZ_G1, MOVK_G0 = 0xD2A00000, 0xF2800000  # movz x0, #0, lsl #16; movk x0, #0
ACCESSES = (
    EdgeKind.GOT_TP_PAGE21,
    EdgeKind.GOT_TP_LOW12,
    EdgeKind.TLSDESC_PAGE21,
    EdgeKind.TLSDESC_LOW12_LOAD,
    EdgeKind.TLSDESC_LOW12,
    EdgeKind.TLSDESC_CALL,
)
"""Kinds of fixups that a linker may rewrite the instruction of."""

NARROW = (
    EdgeKind.TP_LOW12,
    EdgeKind.TP_LOW12_OF_8,
    EdgeKind.TP_LOW12_OF_16,
    EdgeKind.TP_LOW12_OF_32,
    EdgeKind.TP_LOW12_OF_64,
    EdgeKind.TP_LOW12_OF_128,
    EdgeKind.TP_MOVE_G0,
)
"""Kinds that must hold the whole offset and are not wide enough for any (-mtls-size=12)."""

OFFSETS = tuple(kind for kind in EdgeKind if EdgeKind.TP_MOVE_G2 <= kind <= EdgeKind.TP_LOW12_OF_128_UNCHECKED)
"""Kinds that hold a part of the offset from the thread pointer."""


def local_exec(kind: int, code: bytes, field: int) -> Sequence[Rewriting]:
    """How the instruction with this field is written once the offset is known; nothing for what is no access."""
    register = int.from_bytes(code[field : field + WORD], "little") & 31
    if kind == EdgeKind.GOT_TP_PAGE21:
        return [_part(field, MOVZ_G1 | register, EdgeKind.TP_MOVE_G1)]
    if kind == EdgeKind.GOT_TP_LOW12:
        return [_part(field, MOVK_G0 | register, EdgeKind.TP_MOVE_G0_UNCHECKED)]
    if kind == EdgeKind.TLSDESC_PAGE21:
        return [_part(field, MOVZ_G1, EdgeKind.TP_MOVE_G1)]
    if kind == EdgeKind.TLSDESC_LOW12_LOAD:
        return [_part(field, MOVK_G0, EdgeKind.TP_MOVE_G0_UNCHECKED)]
    if kind in (EdgeKind.TLSDESC_LOW12, EdgeKind.TLSDESC_CALL):
        return [Rewriting(field, NOP.to_bytes(WORD, "little"), NONE)]
    return []


def _part(field: int, word: int, kind: EdgeKind) -> Rewriting:
    return Rewriting(field, word.to_bytes(WORD, "little"), field, kind=kind, more=0)
