"""Edge kinds: what a fixup computes, in psABI letters.

S is the symbol's load address, A the addend, P the load address of the fixup, G the load address of the symbol's
GOT slot, TP the symbol's offset from the thread pointer. A kind says nothing of the machine: `R_X86_64_PLT32`
and a Mach-O branch are both `BRANCH32`. Widths and ranges stand beside the kinds in `arch`.
"""

from __future__ import annotations

from enum import IntEnum


class EdgeKind(IntEnum):
    """One equation each. A reader refuses relocations that have none here, by name."""

    ABS64 = 1  # S + A
    ABS32 = 2  # S + A, zero-extended
    ABS32S = 3  # S + A, sign-extended
    ABS16 = 4
    ABS8 = 5
    PCREL64 = 6  # S + A - P
    PCREL32 = 7
    PCREL16 = 8
    PCREL8 = 9
    BRANCH32 = 10  # S + A - P; control flow, so a stub may stand in for S
    GOT_PCREL32 = 11  # G + A - P; the instruction must stay as it is
    GOT_PCREL32_RELAX = 12  # G + A - P; a linker may rewrite the instruction (GOTPCRELX)
    GOT_PCREL32_REX_RELAX = 13  # the same behind a REX prefix (REX_GOTPCRELX)
    TPOFF32 = 14  # TP + A
    TPOFF64 = 15
    GOT_TPOFF32 = 16  # G + A - P, the slot holds TP
    TLS_GD32 = 17
    TLS_LD32 = 18
    DTPOFF32 = 19
    DTPOFF64 = 20
    SIZE32 = 21  # size of the symbol + A
    SIZE64 = 22
    GOT_BASE_PCREL32 = 23  # address of the GOT + A - P (GOTPC32)
    GOT_BASE_PCREL64 = 24
    GOT_OFFSET64 = 25  # S + A - address of the GOT (GOTOFF64)
    GOT_SLOT64 = 26  # G + A - address of the GOT (GOT64)
    GOT_PCREL64 = 27  # G + A - P
    PLT_OFFSET64 = 28  # L + A - address of the GOT
    TLSDESC_PCREL32 = 29
    TLSDESC_CALL = 30  # marks the call; changes no bytes
    GOT_SLOT32 = 31  # G + A - address of the GOT (GOT32)
    GOT_PCREL32_REX2_RELAX = 32  # GOT_PCREL32_RELAX behind a REX2 prefix (CODE_4_GOTPCRELX)
