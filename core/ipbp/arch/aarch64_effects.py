"""What an A64 instruction does to the general registers, as far as addresses are followed through them.

capstone says which registers are read and written; what counts from a register, and how far, is read from the word
itself (Arm Architecture Reference Manual, chapter C4, "A64 instruction set encoding").
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

from capstone import arm64

from ipbp.arch.aarch64_code import WORD, branch_fields, detailed_reader, untold_registers, words

STACK = 31
"""The stack pointer. What a field of 31 means else, zero, is no register here."""
SAVED = frozenset((*range(19, 30), STACK))
"""Registers that an unwinder gives back to who catches."""
_COMPARISONS = ("cmp", "cmn", "tst", "ccmp", "ccmn", "cbz", "cbnz", "tbz", "tbnz")
_ENDS = ("b", "br", "braa", "brab", "braaz", "brabz", "ret", "retaa", "retab", "udf", "brk")
_SIGN = 1 << 20
_CALL = 0x25  # bits 31:26 of bl


class Effect(NamedTuple):
    """`reads`: registers whose value goes somewhere; `compares`: into a comparison only. `writes`: those that have
    another value behind it. `target`: the register that gets an address: of a `page` so far from the instruction's own,
    `near`, so far from itself, `distance` from what `summand` has, or from one of `summands`, as far as another says.

    A load or store counts `distance` from `base`, which then `grows`; it takes `size` bytes in all as `things`,
    and `moves` whole registers one behind the other. `calls`: another function runs; `ends`: nothing runs on behind it;
    `jumps`: to where a register says."""

    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    compares: bool = False
    target: int = STACK
    page: int | None = None
    near: int | None = None
    summand: int | None = None
    summands: tuple[int, ...] = ()
    distance: int = 0
    base: int | None = None
    grows: int = 0
    size: int = 1
    things: int = 1
    moves: tuple[int, ...] = ()
    is_store: bool = False
    calls: bool = False
    ends: bool = False
    jumps: bool = False


def effects(code: bytes) -> list[Effect]:
    """One for each word."""
    return [_effect_of(word) for word in words(code).tolist()]


def targets_inside(code: bytes) -> dict[int, int]:
    """By the index of each direct branch that stays in the function, the index of where it leads."""
    found, size = words(code), len(code) // WORD * WORD
    return {
        row.field // WORD: row.target // WORD
        for row in branch_fields(code)
        if 0 <= row.target < size and int(found[row.field // WORD]) >> 26 != _CALL
    }


@lru_cache(1 << 14)
def _effect_of(word: int) -> Effect:
    row = next(detailed_reader().disasm(word.to_bytes(WORD, "little"), 0, 1), None)
    if row is None:  # no instruction that is known: what its last field could name may be another value
        return Effect(writes=(word & 31,))
    numbers, name = _numbers(), row.mnemonic
    reads, writes = ([numbers[register] for register in side if register in numbers] for side in row.regs_access())
    for register in untold_registers(row):
        if register in numbers:
            reads.append(numbers[register])
            writes.append(numbers[register])
    if word & 0x1F800000 == 0x13000000 and word >> 29 & 3 != 1:  # sbfm, ubfm; capstone 5 takes ubfiz for a bfm
        reads = [word >> 5 & 31]
    calls = name.startswith(("bl", "svc"))
    if calls:
        writes.append(0)  # the result
    compares = name.startswith(_COMPARISONS)
    jumps = name.startswith("br") and name != "brk"
    memory = next((operand for operand in row.operands if operand.type == arm64.ARM64_OP_MEM), None)
    written = () if compares else tuple(writes)
    plain = Effect(tuple(reads), written, compares, ends=name in _ENDS, calls=calls, jumps=jumps)
    if memory is not None:
        return _with_access(plain, word, row, memory)
    return _with_address(plain, word)


def _with_address(plain: Effect, word: int) -> Effect:
    target, summand = word & 31, word >> 5 & 31
    if word & 0x1F000000 == 0x10000000 and target != STACK:  # adr, adrp
        number = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
        number = (number ^ _SIGN) - _SIGN
        return (
            plain._replace(target=target, page=number << 12)
            if word >> 31
            else plain._replace(target=target, near=number)
        )
    if word & 0xBF800000 == 0x91000000 or word & 0xFF800000 == 0xD1000000:  # add, sub xd, xn, #imm
        distance = (word >> 10 & 0xFFF) << (12 if word >> 22 & 1 else 0)
        distance = -distance if word & 1 << 30 else distance
        return plain._replace(target=target, summand=summand, distance=distance)
    if word & 0xFFE0FFE0 == 0xAA0003E0 and target != STACK:  # mov xd, xm
        return plain._replace(target=target, summand=word >> 16 & 31)
    if word & 0xFF000000 == 0x8B000000:  # add xd, xn, xm, or wm, shifted
        return plain._replace(target=target, summands=plain.reads)
    if word & 0xFF008000 == 0x9B000000:  # madd, smaddl, umaddl
        return plain._replace(target=target, summands=(word >> 10 & 31,))
    return plain


def _with_access(plain: Effect, word: int, row: Any, memory: Any) -> Effect:
    numbers = _numbers()
    if memory.mem.index or memory.mem.base not in numbers:
        return plain
    base, distance = numbers[memory.mem.base], memory.mem.disp
    grows = 0
    if row.writeback:
        behind = [operand.imm for operand in row.operands if operand.type == arm64.ARM64_OP_IMM]
        grows = distance or (behind[-1] if behind else 1)
    reads = list(plain.reads)
    reads.remove(base)
    is_pair, is_vector = word & 0x3A000000 == 0x28000000, word >> 26 & 1
    is_store = not word >> 22 & (1 if is_pair or is_vector else 3)
    size = _size(word)
    if is_pair:
        size, things = 2 * (4 << (word >> 30) if is_vector else 8 if word >> 31 else 4), 2
    else:
        things = 1
    moves: tuple[int, ...] = ()
    if size == 8 * things and not is_vector and word & 0x3A000000 != 0x08000000:
        moves = (word & 31, word >> 10 & 31)[:things]
        moves = () if STACK in moves and not is_store else moves  # into nothing
    return plain._replace(
        reads=tuple(reads),
        base=base,
        distance=distance,
        grows=grows,
        size=size,
        things=things,
        moves=moves,
        is_store=is_store,
    )


def _size(word: int) -> int:
    return 16 if word >> 26 & 1 and word >> 23 & 1 else 1 << (word >> 30)


@cache
def _numbers() -> dict[int, int]:
    """The number of each general register, by capstone's."""
    reader, found = detailed_reader(), {arm64.ARM64_REG_SP: STACK, arm64.ARM64_REG_X29: 29, arm64.ARM64_REG_X30: 30}
    for register in range(1, arm64.ARM64_REG_ENDING):
        name = reader.reg_name(register) or ""
        if name[:1] in "wx" and name[1:].isdigit():
            found[register] = int(name[1:])
    return found
