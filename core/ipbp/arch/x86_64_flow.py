"""x86-64: what the instructions of a function take from those before them, by registers and by the frame.

For code that no optimiser has touched: each statement of it loads what it needs, and keeps temporaries in the frame,
which is reached from rbp. Whether a stretch of code stands for itself can be read off that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from capstone import x86

from ipbp.arch.x86_64_code import detailed_reader, displacement_width

NEAR_JUMP_SIZE = 5
NO_CALL = bytes.fromhex("0f1f440000")  # nopl 0(%rax,%rax,1), as long as a call
_JUMP = 0xE9  # jmp <end of it + 4 bytes>
_ARGUMENTS = ("edi", "esi")
_OF_CALLER = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", *(f"xmm{n}" for n in range(16)), "rflags")
SAVED: frozenset[str | int] = frozenset({"rbx", "r12", "r13", "r14", "r15"})
"""Registers that a function gives back as they were (psABI, 3.2.1)."""
_FRAME = frozenset({"rsp", "rbp", "rip"})
_ALWAYS_ZERO = frozenset({x86.X86_INS_XOR, x86.X86_INS_SUB, x86.X86_INS_PXOR, x86.X86_INS_XORPS})


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction. `takes`, `gives`: registers by their widest names, and places in the frame by their distance
    from rbp. `target`: where it may jump to, -1 for nowhere. `ends`: nothing runs on behind it. `keeps`: it stores an
    argument register (edi, esi) in the frame. `frames`: it changes where the frame is, or leaves the function."""

    offset: int
    size: int
    takes: frozenset[str | int]
    gives: frozenset[str | int]
    target: int = -1
    ends: bool = False
    is_call: bool = False
    keeps: bool = False
    frames: bool = False

    @property
    def end(self) -> int:
        return self.offset + self.size


def steps(code: bytes) -> list[Step] | None:
    """The instructions in order; None where not all can be decoded."""
    found = [_step(row, code) for row in detailed_reader().disasm(code, 0)]
    return found if found and found[-1].end == len(code) else None


def reachable(rows: list[Step]) -> Iterator[Step]:
    """Those that run when nothing is thrown, in the order of their addresses."""
    index = {row.offset: number for number, row in enumerate(rows)}
    seen: set[int] = set()
    waiting = [0]
    while waiting:
        number = waiting.pop()
        if number in seen or number >= len(rows):
            continue
        seen.add(number)
        row = rows[number]
        if row.target in index:
            waiting.append(index[row.target])
        if not row.ends:
            waiting.append(number + 1)
    return (rows[number] for number in sorted(seen))


def jump(source: int, target: int) -> bytes:
    """A jump at offset `source` to `target`, of NEAR_JUMP_SIZE bytes."""
    return bytes([_JUMP]) + (target - source - NEAR_JUMP_SIZE).to_bytes(4, "little", signed=True)


def _step(row: Any, code: bytes) -> Step:
    end = row.address + row.size
    width = displacement_width(code[row.address : end])
    is_call = bool(row.group(x86.X86_GRP_CALL))
    target = end + int.from_bytes(code[end - width : end], "little", signed=True) if width and not is_call else -1
    taken, given = row.regs_access()
    takes: set[str | int] = {_widest(row.reg_name(register)) for register in taken}
    gives: set[str | int] = {_widest(row.reg_name(register)) for register in given}
    registers = [operand.reg for operand in row.operands if operand.type == x86.X86_OP_REG]
    if row.id in _ALWAYS_ZERO and len(registers) == 2 and registers[0] == registers[1]:
        takes -= gives
    for operand in row.operands:
        if operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RBP:
            place = int(operand.mem.disp)
            if row.id != x86.X86_INS_LEA and operand.access & 1:
                takes.add(place)
            if row.id == x86.X86_INS_LEA or operand.access & 2:
                gives.add(place)
    if is_call:
        gives |= set(_OF_CALLER)
    keeps = False
    if row.mnemonic == "mov" and len(row.operands) == 2 and registers and row.operands[0].type == x86.X86_OP_MEM:
        keeps = row.reg_name(registers[0]) in _ARGUMENTS and row.operands[0].mem.base == x86.X86_REG_RBP
    ends = bool(row.group(x86.X86_GRP_RET)) or row.id in (x86.X86_INS_JMP, x86.X86_INS_UD2, x86.X86_INS_HLT)
    frames = not is_call and bool(gives & {"rsp", "rbp"})
    return Step(
        row.address,
        row.size,
        frozenset(takes - _FRAME),
        frozenset(gives - _FRAME),
        target,
        ends,
        is_call,
        keeps,
        frames,
    )


@cache
def _widest(name: str) -> str:
    for number in range(8, 16):
        if name in (f"r{number}d", f"r{number}w", f"r{number}b"):
            return f"r{number}"
    if name.startswith(("ymm", "zmm")):
        return "x" + name[1:]
    if name in ("flags", "eflags", "rflags"):
        return "rflags"
    for letter in "abcd":
        if name in (f"{letter}l", f"{letter}h", f"{letter}x", f"e{letter}x", f"r{letter}x"):
            return f"r{letter}x"
    for pair in ("si", "di", "bp", "sp"):
        if name in (f"{pair}l", pair, f"e{pair}", f"r{pair}"):
            return f"r{pair}"
    return "rip" if name in ("ip", "eip") else name
