"""One row a relocation number of AArch64: assembly that has it, and in which images it may stand.

The code refers to what the image has, to absolute symbols that fit into small fields, and to what the object itself
defines, as in `relocation_rows`.
"""

from __future__ import annotations

from relocation_rows import LOW_ONLY, Row

ROWS = (
    Row(257, "ABS64", "", ".xword near_data + 8, near_function, local - 1, far_data + 8"),
    Row(258, "ABS32", "", ".word small + 5, own - 0x10000000", LOW_ONLY),
    Row(259, "ABS16", "", ".hword small + 1", LOW_ONLY),
    Row(260, "PREL64", "", ".xword near_function - ., far_data - . + 4, own - ."),
    Row(261, "PREL32", "", ".word near_data - . + 3, own - ., local - ."),
    Row(262, "PREL16", "", ".hword own - ., local - ."),
    Row(263, "MOVW_UABS_G0", "movz x0, #:abs_g0:small", "", LOW_ONLY),
    Row(264, "MOVW_UABS_G0_NC", "movk x0, #:abs_g0_nc:near_data", "", LOW_ONLY),
    Row(265, "MOVW_UABS_G1", "movz x0, #:abs_g1:own", "", LOW_ONLY),
    Row(266, "MOVW_UABS_G1_NC", "movk x0, #:abs_g1_nc:near_data", "", LOW_ONLY),
    Row(267, "MOVW_UABS_G2", "movz x0, #:abs_g2:near_data", "", LOW_ONLY),
    Row(268, "MOVW_UABS_G2_NC", "movk x0, #:abs_g2_nc:near_data + 7", "", LOW_ONLY),
    Row(269, "MOVW_UABS_G3", "movz x0, #:abs_g3:near_data", "", LOW_ONLY),
    Row(270, "MOVW_SABS_G0", "movz x0, #:abs_g0_s:small; movz x1, #:abs_g0_s:small - 0x2000", "", LOW_ONLY),
    Row(271, "MOVW_SABS_G1", "movz x0, #:abs_g1_s:small; movz x1, #:abs_g1_s:small - 0x2000", "", LOW_ONLY),
    Row(272, "MOVW_SABS_G2", "movz x0, #:abs_g2_s:small; movz x1, #:abs_g2_s:small - 0x2000", "", LOW_ONLY),
    Row(273, "LD_PREL_LO19", "ldr x0, close; ldrsw x1, close + 4; ldr q2, close"),
    Row(274, "ADR_PREL_LO21", "adr x0, close + 3; adr x30, close"),
    Row(275, "ADR_PREL_PG_HI21", "adrp x0, near_data; adrp x17, own + 0x1234; adrp x1, near_function"),
    Row(276, "ADR_PREL_PG_HI21_NC", "adrp x0, :pg_hi21_nc:near_data"),
    Row(277, "ADD_ABS_LO12_NC", "adrp x0, near_data + 9; add x3, x0, :lo12:near_data + 9"),
    Row(278, "LDST8_ABS_LO12_NC", "adrp x0, own; ldrb w3, [x0, :lo12:own + 3]; strb w3, [x0, :lo12:own + 1]"),
    Row(279, "TSTBR14", "tbz x0, #33, close; tbnz w1, #3, close"),
    Row(280, "CONDBR19", "b.ne close; cbz x3, close; cbnz w9, close"),
    Row(282, "JUMP26", "b near_function; b close"),
    Row(283, "CALL26", "bl near_function; bl function; bl near_function + 4"),
    Row(284, "LDST16_ABS_LO12_NC", "adrp x0, own; ldrh w3, [x0, :lo12:own + 2]"),
    Row(285, "LDST32_ABS_LO12_NC", "adrp x0, own; ldr w3, [x0, :lo12:own + 4]; str s1, [x0, :lo12:own]"),
    Row(286, "LDST64_ABS_LO12_NC", "adrp x0, near_data; ldr x3, [x0, :lo12:near_data + 8]; str d1, [x0, :lo12:own]"),
    Row(287, "MOVW_PREL_G0", "movz x0, #:prel_g0:close; movz x1, #:prel_g0:close - 0x8000"),
    Row(288, "MOVW_PREL_G0_NC", "movk x0, #:prel_g0_nc:near_data"),
    Row(289, "MOVW_PREL_G1", "movz x0, #:prel_g1:near_data; movz x0, #:prel_g1:near_data - 0x70000000"),
    Row(290, "MOVW_PREL_G1_NC", "movk x0, #:prel_g1_nc:near_data"),
    Row(291, "MOVW_PREL_G2", "movz x0, #:prel_g2:near_data; movz x0, #:prel_g2:near_data - 0x70000000"),
    Row(292, "MOVW_PREL_G2_NC", "movk x0, #:prel_g2_nc:near_data"),
    Row(293, "MOVW_PREL_G3", "movz x0, #:prel_g3:near_data"),
    Row(299, "LDST128_ABS_LO12_NC", "adrp x0, own; ldr q3, [x0, :lo12:own + 16]"),
    Row(309, "GOT_LD_PREL19", "ldr x0, :got:own", but_lld=True),
    Row(311, "ADR_GOT_PAGE", "adrp x0, :got:near_data; ldr x0, [x0, :got_lo12:near_data]"),
    Row(312, "LD64_GOT_LO12_NC", "adrp x9, :got:far_data; ldr x3, [x9, :got_lo12:far_data]; adrp x1, :got:own; "
        "ldr x2, [x1, :got_lo12:own]"),
    Row(314, "PLT32", "", ".word near_function@PLT - . + 4", but_ld=True),
    Row(315, "GOTPCREL32", "", ".word near_data@GOTPCREL + 2, own@GOTPCREL", but_ld=True),
)  # fmt: skip
PREAMBLE = """
.globl function, own
.section .text.function, "ax"; .type function, %function
function: nop
{code}
ret
.size function, . - function
.section .text.close, "ax"; .type close, %function; .globl close; close: .xword 1, 2; ret; .size close, . - close
.section .data.own, "aw"; .balign 16; .type own, %object; own: .quad 1, 2, 3, 4; .size own, 32
.section .data.local, "aw"; .type local, %object; local: .quad 3; .size local, 8
.section .data.table, "aw"; .type table, %object; table: {data}
.size table, . - table
"""
IMAGE = """
.globl near_data, near_function, far_data, small
small = 0x1234
.hidden small
.section .image_text, "ax"; .type near_function, %function; near_function: ret; ret; .size near_function, 8
.section .image_data, "aw"; .type near_data, %object; near_data: .quad 1, 2, 3, 4; .size near_data, 32
.section .image_far, "aw"; .type far_data, %object; far_data: .quad 1, 2; .size far_data, 16
"""
