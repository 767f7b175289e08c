"""One row a relocation number of x86-64: assembly that has it, and in which images it may stand.

The code refers to what the image has (`near_data`, `near_function`, and `far_data` out of reach of 32 bits), to
absolute symbols that fit into small fields, and to what the object itself defines (`own`, `local`).
"""

from __future__ import annotations

from dataclasses import dataclass

ALL = ("static", "fixed", "pie", "shared")
LOW_ONLY = ("static", "fixed")
"""A 32-bit field holds no address of a position-independent image: linkers refuse it there."""


@dataclass(frozen=True)
class Row:
    """`number` and `name` as the psABI has them; `code` and `data`: what is assembled into .text and into .data.
    `stand_in`: the relocation that the assembler is asked for where it does not know this one; its number is then
    replaced in the object. `but_lld`, `but_ld`: that linker does not know it."""

    number: int
    name: str
    code: str = ""
    data: str = ""
    images: tuple[str, ...] = ALL
    stand_in: int = 0
    but_lld: bool = False
    but_ld: bool = False


ROWS = (
    Row(1, "64", "", ".quad near_data + 8, near_function, local - 1, far_data + 8"),
    Row(1, "64 in code", "movabs $own + 8, %rax; movabs $far_data, %rax", ".quad small", LOW_ONLY),
    Row(2, "PC32", "lea near_data + 16(%rip), %rax; cmpl $7, own(%rip); jne 1f; 1: ret", ".long near_data - . + 3"),
    Row(3, "GOT32", "", ".long near_data@GOT, own@GOT", but_lld=True),
    Row(4, "PLT32", "call near_function@PLT; jmp function; call function", ".long near_function@PLT + 4"),
    Row(9, "GOTPCREL", "", ".long near_data@GOTPCREL + 2, own@GOTPCREL, far_data@GOTPCREL"),
    Row(10, "32", "movl $near_data, %eax", ".long own + 5", LOW_ONLY),
    Row(11, "32S", "movq $near_data, %rax; movl own(, %rdi, 4), %ecx; movl $1, near_data", "", LOW_ONLY),
    Row(12, "16", "movw $small, %ax", ".word small + 1", LOW_ONLY),
    Row(13, "PC16", "", ".word own - ., local - ."),
    Row(14, "8", "movb $tiny, %al", ".byte tiny + 1", LOW_ONLY),
    Row(15, "PC8", "", ".byte own - ., local - ."),
    Row(24, "PC64", "movabs $near_data - ., %rax", ".quad near_function - ., far_data - . + 4, own - ."),
    Row(25, "GOTOFF64", "movabs $near_data@GOTOFF, %rax; movabs $local@GOTOFF, %rcx", ".quad far_data@GOTOFF + 4"),
    Row(26, "GOTPC32", "lea _GLOBAL_OFFSET_TABLE_(%rip), %rbx"),
    Row(27, "GOT64", "movabs $near_data@GOT, %rax; movabs $own@GOT, %rax", ".quad near_function@GOT"),
    Row(28, "GOTPCREL64", "", "0: .reloc 0b, R_X86_64_GOTPCREL64, near_data + 5; .quad 0", but_lld=True),
    Row(29, "GOTPC64", "0: movabs $_GLOBAL_OFFSET_TABLE_ - 0b, %rax", ".quad _GLOBAL_OFFSET_TABLE_ - ."),
    Row(30, "GOTPLT64", "movabs $own@GOTPLT, %rax", "", but_lld=True),
    Row(31, "PLTOFF64", "movabs $near_function@PLTOFF, %rax; movabs $function@PLTOFF, %rax"),
    Row(32, "SIZE32", "movl $own@SIZE, %eax", ".long own@SIZE + 3"),
    Row(33, "SIZE64", "movabs $own@SIZE, %rax", ".quad own@SIZE"),
    Row(41, "GOTPCRELX", "call *near_function@GOTPCREL(%rip); jmp *own@GOTPCREL(%rip)"),
    Row(42, "REX_GOTPCRELX", "movq near_data@GOTPCREL(%rip), %r9; cmpq own@GOTPCREL(%rip), %rax"),
    Row(43, "CODE_4_GOTPCRELX", ".byte 0xd5, 0x48, 0x8b, 0x05", ".long near_data@GOTPCREL - 4", stand_in=9),
    Row(46, "CODE_5_GOTPCRELX", ".byte 0x48, 0x0f, 0x38, 0x8b, 0x05", ".long near_data@GOTPCREL - 4", stand_in=9),
    Row(49, "CODE_6_GOTPCRELX", ".byte 0x62, 0xf4, 0xfc, 0x18, 0x03, 0x05", ".long near_data@GOTPCREL - 4", stand_in=9),
)  # fmt: skip

PREAMBLE = """
.globl function, own
.section .text.function, "ax"; .type function, @function
function: nop
{code}
ret
.size function, . - function
.section .data.own, "aw"; .balign 8; .type own, @object; own: .quad 1, 2; .size own, 16
.section .data.local, "aw"; .type local, @object; local: .quad 3; .size local, 8
.section .data.table, "aw"; .type table, @object; table: {data}
.size table, . - table
"""
IMAGE = """
.globl near_data, near_function, far_data, small, tiny
small = 0x1234; tiny = 0x56
.hidden small, tiny
.section .image_text, "ax"; .type near_function, @function; near_function: ret; .size near_function, 1
.section .image_data, "aw"; .type near_data, @object; near_data: .quad 1, 2, 3, 4; .size near_data, 32
.section .image_far, "aw"; .type far_data, @object; far_data: .quad 1, 2; .size far_data, 16
"""
