"""x86-64: which registers a piece of code changes that a caller must not count on.

By the calling convention a call may change all of them (psABI, section 3.2.1). gcc knows better where it has seen the
function that is called, and goes by what that really changes (-fipa-ra, from -O2 on).
"""

from __future__ import annotations

from functools import cache, lru_cache

from capstone import x86

from ipbp.arch.instructions import EVERYTHING
from ipbp.arch.x86_64_code import detailed_reader

_FAMILIES = (
    ("rax", "eax", "ax", "ah", "al"),
    ("rcx", "ecx", "cx", "ch", "cl"),
    ("rdx", "edx", "dx", "dh", "dl"),
    ("rsi", "esi", "si", "sil"),
    ("rdi", "edi", "di", "dil"),
    *((f"r{n}", f"r{n}d", f"r{n}w", f"r{n}b") for n in range(8, 12)),
    *((f"xmm{n}", f"ymm{n}", f"zmm{n}") for n in range(32)),
    *((f"k{n}",) for n in range(8)),
    tuple(f"{kind}{n}" for kind in ("mm", "fp", "st", "st(") for n in range(8)),
)
_BIT = {name: 1 << number for number, family in enumerate(_FAMILIES) for name in family}


@lru_cache(4096)
def changed_registers(code: bytes) -> tuple[int, bool]:
    """A bit for each of the registers that the code itself writes, and whether it jumps through a pointer or register:
    to a case of a switch, or away. EVERYTHING when it calls so, or cannot be decoded. What it calls directly is not
    followed."""
    decoder, bits = detailed_reader(), _bits()
    found, reached, jumps = 0, 0, False
    for row in decoder.disasm(code, 0):
        reached += row.size
        if row.group(x86.X86_GRP_CALL) and row.operands[0].type != x86.X86_OP_IMM:
            return EVERYTHING, False
        jumps |= row.id == x86.X86_INS_JMP and row.operands[0].type != x86.X86_OP_IMM
        for register in row.regs_access()[1]:
            found |= bits.get(register, 0)
    return (found, jumps) if reached == len(code) else (EVERYTHING, False)


@cache
def _bits() -> dict[int, int]:
    decoder = detailed_reader()
    names = ((register, decoder.reg_name(register)) for register in range(1, x86.X86_REG_ENDING))
    return {register: _BIT[name] for register, name in names if name in _BIT}
