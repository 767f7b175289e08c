"""Assembly with every relocation that the readers of Mach-O and COFF know, for each machine."""

from __future__ import annotations

_X86_CODE = """
  movl $1, {p}var(%rip)
  movw $1, {p}var(%rip)
  movb $1, {p}var+2(%rip)
  cmpl $5, {p}other(%rip)
  leaq {p}var+8(%rip), %rax
  leaq {p}beyond(%rip), %rax
  callq {p}callee
  jmp {p}callee
"""
_ARM_CODE = """
  bl {p}callee
  b {p}callee
"""
_SUPPORT = """
.text
.globl {p}callee, {p}other, {p}beyond
.p2align 4
{p}callee: ret
.data
.p2align 4
{p}other: .quad 3
{p}beyond: .quad 7
"""

SOURCES = {
    "macho-x86_64": """
.text
.globl _start, _var, _second
.p2align 4
_start:"""
    + _X86_CODE.format(p="_")
    + """
  callq *_callee@GOTPCREL(%rip)
  pushq _callee@GOTPCREL(%rip)
  movq _callee@GOTPCREL(%rip), %rax
  movq _thread@TLVP(%rip), %rdi
  leaq Ltext(%rip), %rax
  movsd Lnumber(%rip), %xmm0
  leaq _zero+4(%rip), %rax
  leaq l_kept+8(%rip), %rax
.alt_entry _second
_second:
  retq
_last: jmp _second
.section __TEXT,__cstring,cstring_literals
Ltext: .asciz "text"
.section __TEXT,__literal8,8byte_literals
Lnumber: .quad 0x4000000000000000
.section __TEXT,__const
.p2align 3
l_kept: .quad 1, 2
.data
.p2align 4
_var: .quad _callee+4
  .quad _start - _var
  .long _start - _var
  .long _start - .
  .quad Ltext
  .quad Lnumber - _var
_tail: .long _start - _tail
  .long _callee@GOTPCREL+4
.zerofill __DATA,__bss,_zero,8,3
.tbss _thread$tlv$init, 4, 2
.section __DATA,__thread_vars,thread_local_variables
_thread: .quad __tlv_bootstrap
  .quad 0
  .quad _thread$tlv$init
.subsections_via_symbols
""",
    "macho-arm64": """
.text
.globl _start, _var, _second
.p2align 4
_start:"""
    + _ARM_CODE.format(p="_")
    + """
  bl _callee+4
  adrp x0, _var@PAGE
  add x0, x0, _var@PAGEOFF
  ldr x1, [x0, _var@PAGEOFF]
  ldr w1, [x0, _var@PAGEOFF]
  ldrh w1, [x0, _var@PAGEOFF]
  strb w1, [x0, _var@PAGEOFF]
  ldr q0, [x0, _var@PAGEOFF]
  ldr d0, [x0, _var@PAGEOFF]
  adrp x2, _var@PAGE+16
  add x2, x2, _var@PAGEOFF+16
  ldr x2, [x2, _other@PAGEOFF+8]
  adrp x3, _callee@GOTPAGE
  ldr x3, [x3, _callee@GOTPAGEOFF]
  adrp x4, _thread@TLVPPAGE
  ldr x4, [x4, _thread@TLVPPAGEOFF]
  adrp x5, l_kept@PAGE+8
  add x5, x5, l_kept@PAGEOFF+8
.alt_entry _second
_second:
  ret
.section __TEXT,__const
.p2align 3
l_kept: .quad 1, 2
.data
.p2align 4
_var: .quad _callee+4
  .quad _start - _var
  .long _start - _var
  .long _start - .
  .long _callee@GOT - .
  .long 0
.tbss _thread$tlv$init, 4, 2
.section __DATA,__thread_vars,thread_local_variables
_thread: .quad __tlv_bootstrap
  .quad 0
  .quad _thread$tlv$init
.subsections_via_symbols
""",
    "coff-x86_64": """
.text
.globl start, var
.p2align 4
.def start; .scl 2; .type 32; .endef
start:"""
    + _X86_CODE.format(p="")
    + """
  leaq .Ltext(%rip), %rax
  cmpl $9, .Lnumber(%rip)
  leaq zero+4(%rip), %rax
  retq
.section .rdata,"dr"
named: .quad 5
.Ltext: .asciz "text"
.p2align 3
.Lnumber: .quad 0x4000000000000000
.data
.p2align 4
var: .quad callee+4
  .long callee@IMGREL
  .long start@IMGREL+1
  .long start - .
  .long callee - .
  .quad .Ltext
.lcomm zero,8,8
.section .debug$S,"dr"
.secrel32 var
.secidx var
""",
    "coff-arm64": """
.text
.globl start, var
.p2align 4
.def start; .scl 2; .type 32; .endef
start:"""
    + _ARM_CODE.format(p="")
    + """
  b.eq callee
  tbz w0, #1, callee
  adr x0, var
  adrp x0, var
  add x0, x0, :lo12:var
  ldr x1, [x0, :lo12:var]
  ldr w1, [x0, :lo12:var]
  ldrh w1, [x0, :lo12:var]
  strb w1, [x0, :lo12:var]
  ldr q0, [x0, :lo12:var]
  adrp x2, var+16
  add x2, x2, :lo12:var+16
  adrp x3, .Ltext
  add x3, x3, :lo12:.Ltext
  ret
.section .rdata,"dr"
named: .quad 5
.Ltext: .asciz "text"
.data
.p2align 4
var: .quad callee+4
  .long callee@IMGREL
  .long start@IMGREL+1
  .long start - .
  .long callee - .
  .quad .Ltext
  .quad 0
.section .debug$S,"dr"
.secrel32 var
.secidx var
""",
}
SUPPORT = {
    "macho": _SUPPORT.format(p="_") + ".globl __tlv_bootstrap\n__tlv_bootstrap: .quad 0\n",
    "coff": _SUPPORT.format(p=""),
}

THREADS = {
    "coff-x86_64": """
.text
.globl start
.def start; .scl 2; .type 32; .endef
start:
  movl _tls_index(%rip), %eax
  movl thread@SECREL32(%rax), %eax
  retq
.section .tls$,"dw"
thread: .long 5
.data
.globl _tls_index
_tls_index: .long 0
""",
    "coff-arm64": """
.text
.globl start
.def start; .scl 2; .type 32; .endef
start:
  add x0, x0, :secrel_hi12:thread
  add x0, x0, :secrel_lo12:thread
  ldr w0, [x0, :secrel_lo12:thread]
  ret
.section .tls$,"dw"
thread: .long 5
""",
}
"""Code that reaches a thread-local variable, of which nothing tells where the threads have it."""
