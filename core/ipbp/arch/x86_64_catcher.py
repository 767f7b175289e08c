"""x86-64: the bytes of the function that catches what a constructor throws (`arch.catcher`)."""

from __future__ import annotations

from ipbp.arch.catcher import BEGIN, END, ERRNO, TYPE, CatcherCode
from ipbp.graph.edges import EdgeKind

_CODE = bytes.fromhex(
    "53"  # 00      push %rbx
    "55"  # 01      push %rbp
    "4883ec18"  # 02      sub $0x18,%rsp
    "4889f3"  # 06      mov %rsi,%rbx            the report
    "48893c24"  # 09      mov %rdi,(%rsp)          the function
    "e800000000"  # 0d      call __errno_location
    "488903"  # 12      mov %rax,(%rbx)
    "4889c5"  # 15      mov %rax,%rbp
    "8b00"  # 18      mov (%rax),%eax
    "894308"  # 1a      mov %eax,8(%rbx)
    "ff1424"  # 1d      call *(%rsp)             what this throws goes on at 24
    "31c0"  # 20      xor %eax,%eax
    "eb4b"  # 22      jmp 6f
    "89542408"  # 24      mov %edx,8(%rsp)         which row of the type table fits
    "4889c7"  # 28      mov %rax,%rdi
    "e800000000"  # 2b      call __cxa_begin_catch
    "837c240801"  # 30      cmpl $1,8(%rsp)          std::exception?
    "7525"  # 35      jne 5c
    "4889c7"  # 37      mov %rax,%rdi
    "488b00"  # 3a      mov (%rax),%rax
    "ff5010"  # 3d      call *0x10(%rax)         what() is the third of its virtual functions
    "4885c0"  # 40      test %rax,%rax
    "7417"  # 43      je 5c
    "488d7b18"  # 45      lea 0x18(%rbx),%rdi
    "b9ff000000"  # 49      mov $0xff,%ecx
    "8a10"  # 4e      mov (%rax),%dl
    "8817"  # 50      mov %dl,(%rdi)
    "48ffc0"  # 52      inc %rax
    "48ffc7"  # 55      inc %rdi
    "84d2"  # 58      test %dl,%dl
    "e0f2"  # 5a      loopne 4e
    "e800000000"  # 5c      call __cxa_current_exception_type
    "48894310"  # 61      mov %rax,0x10(%rbx)
    "e800000000"  # 65      call __cxa_end_catch
    "b801000000"  # 6a      mov $1,%eax
    "8b4b08"  # 6f      mov 8(%rbx),%ecx
    "894d00"  # 72      mov %ecx,(%rbp)
    "4883c418"  # 75      add $0x18,%rsp
    "5d"  # 79      pop %rbp
    "5b"  # 7a      pop %rbx
    "c3"  # 7b      ret
)
_CALLS = {0x0E: ERRNO, 0x2C: BEGIN, 0x5D: TYPE, 0x66: END}
_TABLE = bytes.fromhex(
    "ff"  # landing pads count from the function's start
    "00"  # the type table holds plain addresses
    "25"  # its end, from here
    "01"  # ranges of code are ULEB128 numbers
    "0c"  # bytes of them
    "001d0000"  # 00..1d: nothing is thrown
    "1d032401"  # 1d..20: to 24, by the first action
    "205c0000"  # 20..7c: nothing is thrown
    "0101"  # first action: a std::exception, else what follows
    "0200"  # second action: anything
    "000000"  # so that the type table begins at 18
    "0000000000000000"  # second type: anything
    "0000000000000000"  # first type: std::exception
)
_UNWIND = bytes.fromhex(
    "1c000000"  # length
    "00000000"  # a CIE
    "01"  # version
    "7a504c5200"  # zPLR
    "01"  # code counts in bytes
    "78"  # data in -8
    "10"  # the return address
    "07"  # bytes of what follows
    "9b00000000"  # 13: a distance of four bytes to a cell with the personality
    "1b"  # the exception table and
    "1b"  # the function are such distances
    "0c0708"  # the frame is at rsp + 8
    "9001"  # the return address 8 below
    "0000"
    "2c000000"  # 20: length
    "24000000"  # distance to the CIE
    "00000000"  # 28: the function
    "7c000000"  # its size
    "04"  # bytes of what follows
    "00000000"  # 31: the exception table
    "410e108302"  # 01: rbx is saved
    "410e188603"  # 02: rbp is saved
    "440e30"  # 06
    "02730e18"  # 79
    "410e10"  # 7a
    "410e08"  # 7b
    "00000000"
)
CATCHER_CODE = CatcherCode(
    machine="x86_64",
    code=_CODE,
    calls=_CALLS,
    call_kind=EdgeKind.BRANCH32,
    call_addend=-4,
    table=_TABLE,
    types=0x20,
    unwind=_UNWIND,
    unwind_fields=(0x13, 0x28, 0x31),
)
