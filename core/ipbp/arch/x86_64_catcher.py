"""x86-64: a function of ours that calls one of the program's and catches what that throws.

Nothing of the program's stands between a call that a debugger makes and the end of the stack, so an exception would
find no handler and end the program. This function is that handler: it has an unwind row and an exception table as a
compiler would write them (Itanium C++ ABI, Exception Handling; LSB Core, "Exception Frames"), and comes to the patch
as an object's code does. It also puts errno back.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import (
    I32,
    I64,
    U8,
    UNDEFINED,
    Binding,
    BlockKind,
    Blocks,
    Edges,
    LinkGraph,
    Section,
    SectionTable,
    SideEdges,
    SideSection,
    Symbols,
    SymbolType,
    Visibility,
)
from ipbp.graph.names import Names

CATCHER, REPORT = "ipbp_call_and_catch", "ipbp_caught"
"""`uint64_t ipbp_call_and_catch(void (*function)(void), struct ipbp_caught *)`: 0, or 1 when something was thrown. The
report: where errno is (8 bytes) and what it was before (4, 4 of fill), the type_info of what was thrown or 0 (8), what
it says if it is a std::exception (255 bytes and a zero)."""

_ERRNO, _BEGIN, _TYPE, _END = "__errno_location", "__cxa_begin_catch", "__cxa_current_exception_type", "__cxa_end_catch"
_PERSONALITY, _EXCEPTION = "__gxx_personality_v0", "_ZTISt9exception"
NEEDED = (_ERRNO, _BEGIN, _TYPE, _END, _PERSONALITY, _EXCEPTION)
"""What the process must have for it."""

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
_CALLS = {0x0E: _ERRNO, 0x2C: _BEGIN, 0x5D: _TYPE, 0x66: _END}
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
_FIRST_TYPE = 0x20
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
_REPORT_SIZE = 24 + 256


def catcher() -> LinkGraph:
    """The object. Blocks: 0 the function, 1 its exception table, 2 the report, 3 the cell with the personality; symbols
    of the same numbers stand for them."""
    names = [CATCHER, "", REPORT, "", *NEEDED]
    row = {name: number for number, name in enumerate(names)}
    sizes = [len(_CODE), len(_TABLE), _REPORT_SIZE, 8]
    own, count = len(sizes), len(names)
    fields = [
        *((0, field, EdgeKind.BRANCH32, row[name], -4) for field, name in _CALLS.items()),
        (1, _FIRST_TYPE, EdgeKind.ABS64, row[_EXCEPTION], 0),
        (3, 0, EdgeKind.ABS64, row[_PERSONALITY], 0),
    ]
    block, offset, kind, target, addend = zip(*fields, strict=True)
    edges = Edges(_i32(block), _i64(offset), _u8(kind), _i32(target), _i64(addend))
    contents = {".text": _CODE, ".gcc_except_table": _TABLE, ".bss": b"", ".data.rel.ro": bytes(8)}
    return LinkGraph(
        path=CATCHER,
        source="",
        machine="x86_64",
        sections=SectionTable.of(Section(name, memoryview(content), 16) for name, content in contents.items()),
        blocks=Blocks(
            section=_i32(range(own)),
            offset=_i64([0] * own),
            size=_i64(sizes),
            alignment=_i64([16, 8, 8, 8]),
            kind=_u8([BlockKind.CODE, BlockKind.RODATA, BlockKind.BSS, BlockKind.RELRO]),
            anchor=_i32(range(own)),
            mergeable=np.zeros(own, dtype=np.bool_),
        ),
        symbols=Symbols(
            name=Names.of(names),
            block=_i32([*range(own), *[UNDEFINED] * len(NEEDED)]),
            offset=_i64([0] * count),
            size=_i64([*sizes, *[0] * len(NEEDED)]),
            binding=_u8([Binding.LOCAL] * own + [Binding.GLOBAL] * len(NEEDED)),
            type=_u8([SymbolType.FUNCTION] + [SymbolType.OBJECT] * (own - 1) + [SymbolType.NONE] * len(NEEDED)),
            visibility=_u8([Visibility.DEFAULT] * count),
        ),
        edges=edges,
        first_edge=np.searchsorted(edges.block, np.arange(own + 1)).astype(np.int64),
        side=(SideSection(".eh_frame", 8, 2, 0, _unwind_rows),),
    )


def decode_report(content: bytes) -> tuple[int, bytes, int, str]:
    """Where errno is (0: the call was not begun), the bytes that it had, the address of the type_info, the text."""
    where, errno, kind = struct.unpack_from("<Q4s4xQ", content)
    return where, errno, kind, content[24:].partition(b"\0")[0].decode("utf-8", "replace")


def _unwind_rows() -> SideEdges:
    return SideEdges(
        memoryview(_UNWIND),
        _i64([0x13, 0x28, 0x31]),
        _u8([EdgeKind.PCREL32] * 3),
        _i32([3, 0, 1]),
        _i64([0, 0, 0]),
    )


def _i32(values: Sequence[int]) -> I32:
    return np.array(values, dtype=np.int32)


def _i64(values: Sequence[int]) -> I64:
    return np.array(values, dtype=np.int64)


def _u8(values: Sequence[int]) -> U8:
    return np.array(values, dtype=np.uint8)
