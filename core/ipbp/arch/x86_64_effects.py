"""What each instruction of a function does: registers it reads and writes, memory of the frame that it touches, and
where control goes on. Enough to tell what a place in a function depends on.

A general register has three parts, `rax.l` (bits 0 to 7), `rax.h` (8 to 15) and `rax` (the rest): to write 32 bits
clears the rest, to write 8 or 16 keeps it (Intel SDM vol. 1, 3.4.1.1). Vector registers are wholes, `xmm0` for `ymm0`.
Which registers a call takes its arguments from is not written in it (see `stages.liveness`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import capstone
from capstone import x86

from ipbp.arch.x86_64_code import detailed_reader

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))


def parts_of(names: Iterable[str]) -> frozenset[str]:
    """All parts of these registers."""
    return frozenset(part for name in names for part in _PARTS.get(name, (name,)))


def wholes_of(parts: Iterable[str]) -> frozenset[str]:
    """The registers that these are parts of."""
    return frozenset(part.partition(".")[0] for part in parts)


_PARTS = {name: (name, f"{name}.h", f"{name}.l") for name in _GENERAL}
CLOBBERED = parts_of(("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", *(f"xmm{n}" for n in range(16))))
"""By a call (psABI, "Register Usage")."""
RETURNED = parts_of(("rax", "rdx", "xmm0", "xmm1"))
"""In which a call may give a result; what is in the x87 registers is not looked at."""
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
"""Of integers and pointers, in their order (psABI, "Parameter Passing")."""
VECTOR_ARGUMENTS = tuple(f"xmm{number}" for number in range(8))
_VECTOR = re.compile(r"[xyz]mm(\d+)")


def _named_parts() -> dict[str, tuple[str, ...]]:
    """The parts that a name in an instruction means."""
    found: dict[str, tuple[str, ...]] = {}
    for name in _GENERAL:
        if name[1:].isdigit():
            words, half, low, high = (name, f"{name}d"), f"{name}w", f"{name}b", ""
        elif name.endswith("x"):
            words, half, low, high = (name, f"e{name[1:]}"), name[1:], f"{name[1]}l", f"{name[1]}h"
        else:
            words, half, low, high = (name, f"e{name[1:]}"), name[1:], f"{name[1:]}l", ""
        found.update(dict.fromkeys(words, _PARTS[name]))
        found[half] = _PARTS[name][1:]
        found[low] = _PARTS[name][2:]
        if high:
            found[high] = _PARTS[name][1:2]
    return found


_NAMED = _named_parts()


@dataclass(frozen=True, slots=True)
class Access:
    """Memory at `base` + `displacement` (and an index, where `is_indexed`): `size` bytes that are read, written, or
    only addressed (`lea`)."""

    base: str
    displacement: int
    size: int
    is_indexed: bool
    reads: bool
    writes: bool

    @property
    def is_address(self) -> bool:
        return not self.reads and not self.writes


@dataclass(frozen=True, slots=True)
class Effect:
    """`kills`: registers whose old value is gone afterwards, a part of `writes`. `accesses`: operands in memory with a
    register to count from; `stores`: it writes some memory, that of a push included. `successors`: offsets inside the
    function where it goes on; `is_indirect`: it goes somewhere that the instruction does not tell. `pushed`: the bytes
    by which it moves the stack pointer down."""

    offset: int
    size: int
    text: str
    reads: frozenset[str]
    writes: frozenset[str]
    kills: frozenset[str]
    accesses: tuple[Access, ...]
    stores: bool
    successors: tuple[int, ...]
    is_call: bool
    is_indirect: bool
    pushed: int


def effects(code: bytes) -> list[Effect] | None:
    """The instructions in order; None where some bytes are none (data among the code)."""
    found, end = [], 0
    for row in detailed_reader().disasm(code, 0):
        if row.address != end:
            return None
        end = row.address + row.size
        found.append(_effect(row, len(code)))
    return found if end == len(code) else None


def leaders(rows: Sequence[Effect]) -> set[int]:
    """Offsets that a branch leads to, or that nothing runs into."""
    found = {rows[0].offset} if rows else set()
    for before, row in pairwise(rows):
        if row.offset not in before.successors:
            found.add(row.offset)
        if len(before.successors) != 1 or before.successors[0] != row.offset:
            found.update(before.successors)
    return found


def _effect(row: Any, size: int) -> Effect:
    reads, writes = (_parts_read(row, registers) for registers in row.regs_access())
    partial = row.mnemonic.startswith(("cmov", "movlp", "movhp")) or (
        row.mnemonic in ("movss", "movsd") and len(row.operands) == 2 and row.operands[1].type == x86.X86_OP_REG
    )
    kills = frozenset() if partial else writes
    reads = reads | (writes - kills - {"rflags"})
    if _is_zeroing(row):
        reads -= _parts_read(row, [row.operands[0].reg])
    accesses = tuple(_access(row, operand) for operand in row.operands if operand.type == x86.X86_OP_MEM)
    is_call = row.group(capstone.CS_GRP_CALL)
    successors, is_indirect = _successors(row, size)
    pushed = _pushed(row)
    stores = any(access.writes for access in accesses) or pushed > 0 or row.mnemonic.startswith(("rep", "stos", "movs"))
    if row.mnemonic in ("movsd", "movss", "movsx", "movsxd", "movshdup", "movsldup"):
        stores = any(access.writes for access in accesses)
    return Effect(
        row.address,
        row.size,
        f"{row.mnemonic} {row.op_str}".strip(),
        reads,
        writes,
        kills,
        tuple(access for access in accesses if access is not None),
        bool(stores),
        successors,
        is_call,
        is_indirect,
        pushed,
    )


def _is_zeroing(row: Any) -> bool:
    """xor of a register with itself reads nothing of it."""
    operands = row.operands
    return (
        row.mnemonic in ("xor", "pxor", "xorps", "xorpd", "sub")
        and len(operands) == 2
        and all(operand.type == x86.X86_OP_REG for operand in operands)
        and operands[0].reg == operands[1].reg
    )


def _parts_read(row: Any, registers: Sequence[int]) -> frozenset[str]:
    found: set[str] = set()
    for register in registers:
        name = str(row.reg_name(register))
        vector = _VECTOR.fullmatch(name)
        found.update((f"xmm{vector[1]}",) if vector else _NAMED.get(name, (name,)))
    return frozenset(found)


def _access(row: Any, operand: Any) -> Access:
    is_address = row.mnemonic in ("lea", "nop")
    access = 0 if is_address else operand.access
    base = row.reg_name(operand.mem.base) or ""
    size = 1 if is_address else operand.size  # whatever begins there
    return Access(
        _NAMED.get(base, (base,))[0],
        operand.mem.disp,
        size,
        operand.mem.index != 0,
        bool(access & capstone.CS_AC_READ) and not is_address,
        bool(access & capstone.CS_AC_WRITE) and not is_address,
    )


def _successors(row: Any, size: int) -> tuple[tuple[int, ...], bool]:
    after = row.address + row.size
    following = (after,) if after < size else ()
    if row.group(capstone.CS_GRP_RET) or row.mnemonic in ("hlt", "ud2", "ud1"):
        return (), False
    if row.group(capstone.CS_GRP_CALL):
        return following, False
    if row.group(capstone.CS_GRP_JUMP) or row.mnemonic.startswith("loop"):
        is_conditional = row.mnemonic not in ("jmp", "ljmp", "notrack jmp", "bnd jmp")
        operand = row.operands[0]
        if operand.type != x86.X86_OP_IMM:
            return following if is_conditional else (), True
        inside = (operand.imm,) if 0 <= operand.imm < size else ()
        return (*(following if is_conditional else ()), *inside), False
    return following, False


def _pushed(row: Any) -> int:
    if row.mnemonic.startswith("push"):
        return 8
    if row.mnemonic.startswith("pop"):
        return -8
    operands = row.operands
    is_sum = row.mnemonic in ("sub", "add") and len(operands) == 2 and operands[1].type == x86.X86_OP_IMM
    if is_sum and operands[0].type == x86.X86_OP_REG and row.reg_name(operands[0].reg) == "rsp":
        return int(operands[1].imm) if row.mnemonic == "sub" else -int(operands[1].imm)
    return 0
