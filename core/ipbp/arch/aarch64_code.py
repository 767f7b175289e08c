"""Reading AArch64 machine code: which words are padding, where branches go.

Every instruction is a word of four bytes, little-endian whatever the data is (Arm Architecture Reference Manual,
chapter C4), so a whole function is one column of words and most questions are masks. Words between functions or behind
one may be data (a literal pool, marked by `$d` in an object); what looks like a branch there leads somewhere by chance,
and whoever compares two versions finds a difference rather than none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import capstone
import numpy as np
from capstone import arm64

from ipbp.arch.fields import part_of_word, words_of
from ipbp.arch.instructions import EVERYTHING, Instruction, LocalField
from ipbp.graph.columns import I64, U8, Flags
from ipbp.graph.edges import EdgeKind

WORD = 4
NOP = 0xD503201F
BRK = 0xD4200000  # brk #0
_FILL = (NOP, 0, BRK, BRK | 1 << 5)  # zeros are `udf #0`; lld's fill is brk #1

_TABLE_WINDOW = 6  # instructions between `adr` and the jump through the table

# (mask, value, kind) of the instructions with a distance in them.
_BRANCHES = (
    (0x7C000000, 0x14000000, EdgeKind.BRANCH26),  # b, bl
    (0xFF000000, 0x54000000, EdgeKind.BRANCH19),  # b.cond, bc.cond
    (0x7E000000, 0x34000000, EdgeKind.BRANCH19),  # cbz, cbnz
    (0x7E000000, 0x36000000, EdgeKind.BRANCH14),  # tbz, tbnz
)
_OPERANDS = (
    (0x9F000000, 0x10000000, EdgeKind.ADDRESS21),  # adr
    (0x3B000000, 0x18000000, EdgeKind.LITERAL19),  # ldr (literal), prfm (literal)
)


def words(code: bytes) -> I64:
    """The words of a function; bytes at its end that make none are left out."""
    whole = len(code) // WORD * WORD
    return words_of(np.frombuffer(code[:whole], np.uint8).reshape(-1, WORD))


def is_padding(code: bytes) -> bool:
    """Whether these bytes do nothing: nops, traps of linkers, zeros."""
    return not code.strip(b"\0") or (len(code) % WORD == 0 and bool(np.isin(words(code), _FILL).all()))


def instructions(code: bytes) -> list[Instruction]:
    """The instructions of a function in order; words that are none become `.byte` rows."""
    return [Instruction(*row) for row in _lite(code)]


def displacement_width(instruction: bytes) -> int:
    """0: there is one encoding of each branch only, so that nothing but its distance can differ."""
    return 0


def local_fields(code: bytes) -> list[LocalField]:
    """Every direct branch, call, `adr` and literal load of a function, with the offset it means."""
    return _fields(code, (*_BRANCHES, *_OPERANDS))


def stored_places(code: bytes) -> list[tuple[int, int]]:
    """Offset and meaning of every `adr`. Compilers count the entries of a switch's table from such a place, and then
    branch there at once (`adr`, `add`, `br`): that one is not stored."""
    found, rows = words(code), _fields(code, _OPERANDS[:1])
    places = []
    for row in rows:
        register = int(found[row.field // WORD]) & 31
        ahead = found[row.field // WORD + 1 :][:_TABLE_WINDOW]
        added = (ahead & 0xFF000000 == 0x8B000000) & (ahead >> 5 & 31 == register)  # add xd, <register>, xm or wm
        branches = ahead & 0xFFFFFC1F == 0xD61F0000  # br
        if not (added.any() and branches.any()):
            places.append((row.field, row.target))
    return places


def branch_targets(code: bytes) -> list[int]:
    """Offsets in the function, or outside of it, that its direct branches and calls go to."""
    return [row.target for row in branch_fields(code)]


def branch_fields(code: bytes) -> list[LocalField]:
    """Every direct branch and call of a function."""
    return _fields(code, _BRANCHES)


def literal_fields(code: bytes) -> list[LocalField]:
    """Every load of a literal."""
    return _fields(code, _OPERANDS[1:])


def call_returns(code: bytes) -> list[int]:
    """Offsets that calls of the function return to: those behind `bl` and `blr`, with or without authentication."""
    found = words(code)
    calls = (found & 0xFC000000 == 0x94000000) | (found & 0xFEFFF000 == 0xD63F0000)
    return ((np.flatnonzero(calls) + 1) * WORD).tolist()


def possible_branches(octets: U8) -> tuple[I64, I64]:
    """Where a section's words look like a direct branch, and where it would go; sorted by that."""
    rows = _fields(octets.tobytes(), _BRANCHES)
    place, target = (np.array([getattr(row, name) for row in rows], dtype=np.int64) for name in ("field", "target"))
    order = np.argsort(target, kind="stable")
    return place[order], target[order]


def takes_address(octets: U8, kind: U8, fields: I64) -> Flags:
    """For each field whether its instruction makes an address, and does not use one right there."""
    return np.isin(kind, (EdgeKind.LOW12, EdgeKind.ADDRESS21, EdgeKind.MOVE_G3, EdgeKind.ABS64))


def changed_registers(code: bytes) -> tuple[int, bool]:
    """A bit for each of the registers that the code itself writes and that a caller must not count on (AAPCS64,
    "Machine registers": x0-x18, x30, the vectors, of v8-v15 the upper halves), and whether it jumps through a register.
    EVERYTHING when it calls so, or cannot be decoded."""
    reader, bits = detailed_reader(), _bits()
    found, reached, jumps = 0, 0, False
    for row in reader.disasm(code, 0):
        reached += row.size
        if row.mnemonic.startswith("blr"):
            return EVERYTHING, False
        jumps |= row.mnemonic.startswith("br") and row.mnemonic != "brk"
        for register in (*row.regs_access()[1], *untold_registers(row)):
            found |= bits.get(register, 0)
    return (found, jumps) if reached == len(code) else (EVERYTHING, False)


def untold_registers(row: Any) -> list[int]:
    """Registers of an instruction of which capstone 5 does not say what becomes of them: those of atomics."""
    return [operand.reg for operand in row.operands if operand.type == arm64.ARM64_OP_REG and operand.access == 0]


def _fields(code: bytes, shapes: Sequence[tuple[int, int, EdgeKind]]) -> list[LocalField]:
    found, rows = words(code), []
    for mask, value, kind in shapes:
        at = np.flatnonzero(found & mask == value)
        distance = part_of_word(np.full(len(at), kind, np.uint8), found[at])
        places = zip((at * WORD).tolist(), (at * WORD + distance).tolist(), strict=True)
        rows += [LocalField(place, kind, target) for place, target in places]
    return sorted(rows, key=lambda row: row.field)


def _lite(code: bytes) -> Iterator[tuple[int, int, str, str]]:
    rows: Iterator[tuple[int, int, str, str]] = _plain().disasm_lite(code, 0)
    return rows


@cache
def _plain() -> Any:
    reader = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    reader.skipdata = True
    return reader


@cache
def detailed_reader() -> Any:
    """capstone for A64 code, with operands and registers."""
    reader = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    reader.detail = True
    return reader


@cache
def _bits() -> dict[int, int]:
    reader, found = detailed_reader(), {}
    for register in range(1, arm64.ARM64_REG_ENDING):
        name = reader.reg_name(register) or ""
        kind, number = name[:1], name[1:]
        if not number.isdigit():
            found[register] = {"lr": 1 << 30}.get(name, 0)
        elif kind in "xw" and int(number) <= 18:
            found[register] = 1 << int(number)
        elif kind in "vqdshb":
            found[register] = 1 << 32 + int(number)
    return found
