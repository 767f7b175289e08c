"""Edge kinds: what a fixup computes, in psABI letters.

S is the symbol's load address, A the addend, P the load address of the fixup, G the load address of the symbol's
GOT slot, TP the symbol's offset from the thread pointer. A kind says nothing of the machine: `R_X86_64_PLT32`
and a Mach-O branch are both `BRANCH32`. Widths and ranges stand beside the kinds in `arch`.
"""

from __future__ import annotations

from ipbp.graph.columns import ColumnEnum


class EdgeKind(ColumnEnum):
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

    # Parts of instructions of a fixed length: a number is the width of the part in bits. An address is put together of
    # its page (Page(x): x without its low twelve bits) and those twelve.
    WORD32 = 33  # S + A, either reading of the sign
    BRANCH26 = 34  # S + A - P; control flow, so a stub may stand in for S
    BRANCH19 = 35  # S + A - P; a conditional jump
    BRANCH14 = 36
    LITERAL19 = 37  # S + A - P; reads memory there
    ADDRESS21 = 38  # S + A - P; takes the address
    PAGE21 = 39  # Page(S + A) - Page(P)
    PAGE21_UNCHECKED = 40
    LOW12 = 41  # S + A, the low twelve bits: an address is taken
    LOW12_OF_8 = 42  # the same in a load or store of 8 bits, and so on
    LOW12_OF_16 = 43
    LOW12_OF_32 = 44
    LOW12_OF_64 = 45
    LOW12_OF_128 = 46
    MOVE_G0 = 47  # S + A, bits 15:0, which must be all of it
    MOVE_G0_UNCHECKED = 48
    MOVE_G1 = 49  # bits 31:16
    MOVE_G1_UNCHECKED = 50
    MOVE_G2 = 51
    MOVE_G2_UNCHECKED = 52
    MOVE_G3 = 53
    MOVE_SIGNED_G0 = 54  # the same with a sign
    MOVE_SIGNED_G1 = 55
    MOVE_SIGNED_G2 = 56
    MOVE_DISTANCE_G0 = 57  # S + A - P, with a sign
    MOVE_DISTANCE_G0_UNCHECKED = 58
    MOVE_DISTANCE_G1 = 59
    MOVE_DISTANCE_G1_UNCHECKED = 60
    MOVE_DISTANCE_G2 = 61
    MOVE_DISTANCE_G2_UNCHECKED = 62
    MOVE_DISTANCE_G3 = 63
    GOT_PAGE21 = 64  # Page(G) - Page(P)
    GOT_LOW12 = 65  # G, the low twelve bits
    GOT_LITERAL19 = 66  # G - P
    TP_MOVE_G2 = 67  # TP + A, with a sign
    TP_MOVE_G1 = 68
    TP_MOVE_G1_UNCHECKED = 69
    TP_MOVE_G0 = 70
    TP_MOVE_G0_UNCHECKED = 71
    TP_HIGH12 = 72  # TP + A, bits 23:12
    TP_LOW12 = 73  # TP + A, which must be all of it
    TP_LOW12_UNCHECKED = 74
    TP_LOW12_OF_8 = 75
    TP_LOW12_OF_8_UNCHECKED = 76
    TP_LOW12_OF_16 = 77
    TP_LOW12_OF_16_UNCHECKED = 78
    TP_LOW12_OF_32 = 79
    TP_LOW12_OF_32_UNCHECKED = 80
    TP_LOW12_OF_64 = 81
    TP_LOW12_OF_64_UNCHECKED = 82
    TP_LOW12_OF_128 = 83
    TP_LOW12_OF_128_UNCHECKED = 84
    GOT_TP_PAGE21 = 85  # Page(G) - Page(P), the slot holds TP
    GOT_TP_LOW12 = 86
    TLSDESC_PAGE21 = 87
    TLSDESC_LOW12_LOAD = 88
    TLSDESC_LOW12 = 89

    # What COFF counts from the image's start, from a section's start, and sections themselves.
    IMAGE32 = 90  # S + A - B, where B is the load address of the image
    SECTION16 = 91  # number of the section of S
    SECREL32 = 92  # S + A - start of its section: in code the way to a thread-local variable
    SECREL_HIGH12 = 93  # the same, bits 23:12
    SECREL_LOW12 = 94
    SECREL_LOW12_OF_8 = 95
    SECREL_LOW12_OF_16 = 96
    SECREL_LOW12_OF_32 = 97
    SECREL_LOW12_OF_64 = 98
    SECREL_LOW12_OF_128 = 99
