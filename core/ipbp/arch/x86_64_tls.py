"""x86-64: how compilers reach a thread-local variable, and what a linker makes of it that knows the answer.

A compiler that does not know where a variable will be asks at run time: by a call of __tls_get_addr (general and
local dynamic), through a descriptor, or through a cell that holds the offset from the thread pointer (initial exec).
Once the offset is known, a linker writes it into the same bytes (local exec). The shapes of both, byte for byte, are
fixed: "ELF Handling For Thread-Local Storage", section 5; psABI, section 11 "Linker Optimization". Nothing else is
rewritten, and in memory nothing else is taken for a rewriting.

A shape is looked up by the position of its first fixup's field. Positions count in the code that is given.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipbp.arch.rewriting import NONE, Rewriting
from ipbp.graph.edges import EdgeKind

ACCESSES = (
    EdgeKind.TLS_GD32,
    EdgeKind.TLS_LD32,
    EdgeKind.GOT_TPOFF32,
    EdgeKind.TLSDESC_PCREL32,
    EdgeKind.TLSDESC_CALL,
)
"""Kinds of fixups that a linker may rewrite the instruction of."""

_LEA_RDI = bytes.fromhex("488d3d")  # lea <field>(%rip), %rdi
_LOAD_TP = bytes.fromhex("64488b042500000000")  # mov %fs:0, %rax
_LEA_OFFSET = bytes.fromhex("488d8000000000")  # lea <tpoff>(%rax), %rax
_ADD_CELL = bytes.fromhex("48030500000000")  # add <gottpoff>(%rip), %rax
_NOP_6 = bytes.fromhex("660f1f440000")  # nopw 0(%rax,%rax)
_NOP_13 = bytes.fromhex("666666662e0f1f840000000000")  # nopw %cs:0(%rax,%rax), with spare prefixes
_CALL_DESCRIPTOR, _XCHG = b"\xff\x10", b"\x66\x90"  # call *(%rax); xchg %ax, %ax: two bytes of nothing

# Calls of __tls_get_addr: bytes before the call's field, and how far from the first field that is.
_SMALL_CALLS = {
    bytes.fromhex("666648e8"),  # data16 data16 rex.W call <field>
    bytes.fromhex("6648ff15"),  # data16 rex.W call *<field>(%rip)
    bytes.fromhex("664867e8"),  # data16 rex.W addr32 call <field>
}
_LARGE_CALL = bytes.fromhex("48b8")  # movabs $<field>, %rax
_LARGE_ENDS = {bytes.fromhex("4801d8ffd0"), bytes.fromhex("4c01f8ffd0")}  # add %rbx|%r15, %rax; call *%rax


def local_exec(kind: int, code: bytes, field: int) -> Sequence[Rewriting]:
    """How an access whose offset is known may be written, GNU ld's way first; nothing for an unknown shape."""
    if kind == EdgeKind.TLS_GD32:
        return _general_dynamic(code, field, _LEA_OFFSET, through_cell=False)
    if kind == EdgeKind.TLS_LD32:
        return _local_dynamic(code, field)
    if kind == EdgeKind.GOT_TPOFF32:
        return _initial_exec(code, field)
    if kind == EdgeKind.TLSDESC_PCREL32 and _is_operand(code, field, 0x8D):
        return [_immediate(code, field, 0xC7)]  # mov $tpoff, %reg
    if kind == EdgeKind.TLSDESC_CALL and code[field : field + 2] == _CALL_DESCRIPTOR:
        return [Rewriting(field, _XCHG, NONE)]
    return []


def initial_exec(kind: int, code: bytes, field: int) -> Sequence[Rewriting]:
    """How an access may be written whose offset the loader puts into a cell; a descriptor's call goes as above."""
    if kind == EdgeKind.TLS_GD32:
        return _general_dynamic(code, field, _ADD_CELL, through_cell=True)
    if kind == EdgeKind.TLSDESC_PCREL32 and _is_operand(code, field, 0x8D):
        # mov <cell>(%rip), %reg
        return [Rewriting(field - 3, bytes([code[field - 3], 0x8B, code[field - 1], 0, 0, 0, 0]), field, NONE, True)]
    return []


def _general_dynamic(code: bytes, field: int, answer: bytes, *, through_cell: bool) -> Sequence[Rewriting]:
    if code[max(field - 4, 0) : field] == b"\x66" + _LEA_RDI and code[field + 4 : field + 8] in _SMALL_CALLS:
        return [Rewriting(field - 4, _LOAD_TP + answer, field + 8, field + 8, through_cell)]
    if _is_large(code, field):
        return [Rewriting(field - 3, _LOAD_TP + answer + _NOP_6, field + 9, field + 6, through_cell)]
    return []


def _local_dynamic(code: bytes, field: int) -> Sequence[Rewriting]:
    if code[max(field - 3, 0) : field] == _LEA_RDI and code[field + 4 : field + 5] == b"\xe8":
        return [Rewriting(field - 3, b"\x66" * 3 + _LOAD_TP, NONE, field + 5)]
    if code[max(field - 3, 0) : field] == _LEA_RDI and code[field + 4 : field + 6] in (b"\xff\x15", b"\x67\xe8"):
        return [Rewriting(field - 3, b"\x66" * 4 + _LOAD_TP, NONE, field + 6)]
    if _is_large(code, field):
        return [Rewriting(field - 3, _NOP_13 + _LOAD_TP, NONE, field + 6)]
    return []


def _initial_exec(code: bytes, field: int) -> Sequence[Rewriting]:
    if _is_operand(code, field, 0x8B):
        return [_immediate(code, field, 0xC7)]  # mov $tpoff, %reg
    if not _is_operand(code, field, 0x03):
        return []
    rex, register = code[field - 3], code[field - 1] >> 3
    add = _immediate(code, field, 0x81)  # add $tpoff, %reg
    lea = bytes([rex | (rex & 4) >> 2, 0x8D, 0x80 | register << 3 | register, 0, 0, 0, 0])  # lea tpoff(%reg), %reg
    # A base of %rsp or %r12 needs one byte more (SDM vol. 2, table 2-2).
    return [add] if register == 4 else [Rewriting(field - 3, lea, field), add]


def _is_large(code: bytes, field: int) -> bool:
    """The call of the large code model: its target is a 64-bit offset from the table in %rbx or %r15."""
    is_call = code[field + 4 : field + 6] == _LARGE_CALL and code[field + 14 : field + 19] in _LARGE_ENDS
    return is_call and code[max(field - 3, 0) : field] == _LEA_RDI


def _is_operand(code: bytes, field: int, opcode: int) -> bool:
    """Whether the field is the operand of `opcode <field>(%rip), %reg` on 64 bits."""
    before = code[max(field - 3, 0) : field]
    return len(before) == 3 and before[0] in (0x48, 0x4C) and before[1] == opcode and before[2] & 0xC7 == 0x05


def _immediate(code: bytes, field: int, opcode: int) -> Rewriting:
    # The register moves from ModRM.reg to ModRM.rm, its fourth bit from REX.R to REX.B.
    rex, register = code[field - 3], code[field - 1] >> 3
    moved = rex & 0xFB | (rex & 4) >> 2
    return Rewriting(field - 3, bytes([moved, opcode, 0xC0 | register, 0, 0, 0, 0]), field)
