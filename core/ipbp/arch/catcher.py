"""A function of ours that calls one of the program's and catches what that throws.

Nothing of the program's stands between a call that a debugger makes and the end of the stack, so an exception would
find no handler and end the program. This function is that handler: it has an unwind row and an exception table as a
compiler would write them (Itanium C++ ABI, Exception Handling; LSB Core, "Exception Frames"), and comes to the patch
as an object's code does. It also puts errno back. Its bytes are the machine's (`x86_64_catcher`, `aarch64_catcher`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

ERRNO, BEGIN, TYPE, END = "__errno_location", "__cxa_begin_catch", "__cxa_current_exception_type", "__cxa_end_catch"
_PERSONALITY, _EXCEPTION = "__gxx_personality_v0", "_ZTISt9exception"
NEEDED = (ERRNO, BEGIN, TYPE, END, _PERSONALITY, _EXCEPTION)
"""What the process must have for it."""
_REPORT_SIZE = 24 + 256


@dataclass(frozen=True, slots=True)
class CatcherCode:
    """What of it is a machine's. `calls`: by the offset of each call's field, what it calls: fixups of `call_kind`,
    with `call_addend`. `types`: the offset in `table`, the exception table, of its cell for std::exception. `unwind`: a
    CIE and an FDE with distances to the personality's cell, the function and the table at `unwind_fields`."""

    machine: str
    code: bytes
    calls: Mapping[int, str]
    call_kind: EdgeKind
    call_addend: int
    table: bytes
    types: int
    unwind: bytes
    unwind_fields: tuple[int, int, int]


def catcher_of(row: CatcherCode) -> LinkGraph:
    """The object. Blocks: 0 the function, 1 its exception table, 2 the report, 3 the cell with the personality; symbols
    of the same numbers stand for them."""
    names = [CATCHER, "", REPORT, "", *NEEDED]
    number = {name: place for place, name in enumerate(names)}
    sizes = [len(row.code), len(row.table), _REPORT_SIZE, 8]
    own, count = len(sizes), len(names)
    fields = [
        *((0, field, row.call_kind, number[name], row.call_addend) for field, name in row.calls.items()),
        (1, row.types, EdgeKind.ABS64, number[_EXCEPTION], 0),
        (3, 0, EdgeKind.ABS64, number[_PERSONALITY], 0),
    ]
    block, offset, kind, target, addend = zip(*fields, strict=True)
    edges = Edges(_i32(block), _i64(offset), _u8(kind), _i32(target), _i64(addend))
    contents = {".text": row.code, ".gcc_except_table": row.table, ".bss": b"", ".data.rel.ro": bytes(8)}
    return LinkGraph(
        path=CATCHER,
        source="",
        machine=row.machine,
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
        side=(SideSection(".eh_frame", 8, 2, 0, lambda: _unwind_rows(row)),),
    )


def decode_report(content: bytes) -> tuple[int, bytes, int, str]:
    """Where errno is (0: the call was not begun), the bytes that it had, the address of the type_info, the text."""
    where, errno, kind = struct.unpack_from("<Q4s4xQ", content)
    return where, errno, kind, content[24:].partition(b"\0")[0].decode("utf-8", "replace")


def _unwind_rows(row: CatcherCode) -> SideEdges:
    return SideEdges(
        memoryview(row.unwind),
        _i64(row.unwind_fields),
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
