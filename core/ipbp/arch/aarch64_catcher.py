"""AArch64: the bytes of the function that catches what a constructor throws (`arch.catcher`).

It is entered, and its handler is, by whatever branch the debugger and the unwinder have, so that both begin with a
landing pad, as compilers' do under -mbranch-protection (Arm Architecture Reference Manual, "BTI").
"""

from __future__ import annotations

from ipbp.arch.catcher import BEGIN, END, ERRNO, TYPE, CatcherCode
from ipbp.graph.edges import EdgeKind

_CODE = bytes.fromhex(
    "5f2403d5"  # 00  bti c
    "fd7bbda9"  # 04  stp x29, x30, [sp, #-48]!
    "fd030091"  # 08  mov x29, sp
    "f35301a9"  # 0c  stp x19, x20, [sp, #16]
    "f51300f9"  # 10  str x21, [sp, #32]
    "f30301aa"  # 14  mov x19, x1              the report
    "f50300aa"  # 18  mov x21, x0              the function
    "00000094"  # 1c  bl __errno_location
    "600200f9"  # 20  str x0, [x19]
    "f40300aa"  # 24  mov x20, x0
    "000040b9"  # 28  ldr w0, [x0]
    "600a00b9"  # 2c  str w0, [x19, #8]
    "a0023fd6"  # 30  blr x21                  what this throws goes on at 3c
    "00008052"  # 34  mov w0, #0
    "15000014"  # 38  b 8c
    "9f2403d5"  # 3c  bti j
    "f50301aa"  # 40  mov x21, x1              which row of the type table fits
    "00000094"  # 44  bl __cxa_begin_catch
    "bf060071"  # 48  cmp w21, #1              std::exception?
    "81010054"  # 4c  b.ne 7c
    "010040f9"  # 50  ldr x1, [x0]
    "210840f9"  # 54  ldr x1, [x1, #16]        what() is the third of its virtual functions
    "20003fd6"  # 58  blr x1
    "000100b4"  # 5c  cbz x0, 7c
    "61620091"  # 60  add x1, x19, #24
    "e21f8052"  # 64  mov w2, #255
    "03144038"  # 68  ldrb w3, [x0], #1
    "23140038"  # 6c  strb w3, [x1], #1
    "63000034"  # 70  cbz w3, 7c
    "42040071"  # 74  subs w2, w2, #1
    "81ffff54"  # 78  b.ne 68
    "00000094"  # 7c  bl __cxa_current_exception_type
    "600a00f9"  # 80  str x0, [x19, #16]
    "00000094"  # 84  bl __cxa_end_catch
    "20008052"  # 88  mov w0, #1
    "610a40b9"  # 8c  ldr w1, [x19, #8]
    "810200b9"  # 90  str w1, [x20]
    "f51340f9"  # 94  ldr x21, [sp, #32]
    "f35341a9"  # 98  ldp x19, x20, [sp, #16]
    "fd7bc3a8"  # 9c  ldp x29, x30, [sp], #48
    "c0035fd6"  # a0  ret
)
_CALLS = {0x1C: ERRNO, 0x44: BEGIN, 0x7C: TYPE, 0x84: END}
_TABLE = bytes.fromhex(
    "ff"  # landing pads count from the function's start
    "00"  # the type table holds plain addresses
    "25"  # its end, from here
    "01"  # ranges of code are ULEB128 numbers
    "0c"  # bytes of them
    "00300000"  # 00..30: nothing is thrown
    "30043c01"  # 30..34: to 3c, by the first action
    "34700000"  # 34..a4: nothing is thrown
    "0101"  # first action: a std::exception, else what follows
    "0200"  # second action: anything
    "000000"  # so that the type table begins at 18
    "0000000000000000"  # second type: anything
    "0000000000000000"  # first type: std::exception
)
_UNWIND = bytes.fromhex(
    "18000000"  # length
    "00000000"  # a CIE
    "01"  # version
    "7a504c5200"  # zPLR
    "04"  # code counts in words
    "78"  # data in -8
    "1e"  # the return address is in x30
    "07"  # bytes of what follows
    "9b00000000"  # 13: a distance of four bytes to a cell with the personality
    "1b"  # the exception table and
    "1b"  # the function are such distances
    "0c1f00"  # the frame is at sp
    "30000000"  # 1c: length
    "20000000"  # distance to the CIE
    "00000000"  # 24: the function
    "a4000000"  # its size
    "04"  # bytes of what follows
    "00000000"  # 2d: the exception table
    "420e309d069e05"  # 08: x29 and x30 are saved, below 48 bytes
    "4293049403"  # 10: x19, x20
    "419502"  # 14: x21
    "61d5"  # 98: x21 is back
    "41d4d3"  # 9c: x20, x19
    "41dedd0e00"  # a0: x30, x29
    "000000000000"
)
CATCHER_CODE = CatcherCode(
    machine="aarch64",
    code=_CODE,
    calls=_CALLS,
    call_kind=EdgeKind.BRANCH26,
    call_addend=0,
    table=_TABLE,
    types=0x20,
    unwind=_UNWIND,
    unwind_fields=(0x13, 0x24, 0x2D),
)
