"""Reading x86-64 machine code: where a fixup's instruction ends, which bytes are padding, where branches go.

An object file says where a fixup is and not what instruction holds it. That matters: the processor counts a
pc-relative operand from the end of its instruction, so `cmpb $1, x(%rip)` has one more byte between the field and
the place it counts from than `mov x(%rip), %eax`, and the addend alone does not tell which of two neighbours is
meant. Whole objects are read as columns with the rules of the opcode map (Intel SDM vol. 2, appendix A); where the
bytes allow two readings the function is decoded from its start with capstone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import capstone
import numpy as np
import numpy.typing as npt

from ipbp.arch.instructions import Instruction, LocalField
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, U8

UNSURE = -1
"""In the result of `immediate_sizes`: the bytes before the field allow more than one reading."""

_LEA_BEFORE_FIELD = 3  # bytes of `lea disp32(%rip)` before its field: prefix, opcode, ModRM
_PADDING = re.compile(
    rb"""(?: \x00 | \xcc                      # fill of linkers; int3
        | [\x66\x2e]* (?: \x90                # nop, data16 nop
                        | \x0f\x1f (?: \x00 | \x40. | \x44.. | \x80.... | \x84..... ) )  # nopl, nopw
        | \x8d\x76\x00 | \x8d\xb6.... | \x48\x8d\x76\x00                                 # lea 0(%rsi),%rsi
    )*""",
    re.VERBOSE | re.DOTALL,
)

# Opcodes followed by an immediate in the one-byte map or in one of the 0F maps, with a memory operand.
_ONE_BYTE = np.zeros(256, dtype=np.int8)
_ONE_BYTE[[0x80, 0x83, 0xC6]] = 1
_ONE_BYTE[[0x81, 0xC7]] = 4
_SHORT = 1 << 14
"""Bytes of a function whose instructions are kept."""
_DOUBTFUL = np.zeros(256, dtype=np.bool_)
_DOUBTFUL[[0x69, 0x6B, 0xC0, 0xC1, 0xF6, 0xF7, 0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5]] = True


@dataclass(frozen=True, slots=True)
class Branch:
    """A direct branch or call. `field`: offset of its displacement, `width` bytes; `target`: offset it goes to."""

    field: int
    width: int
    target: int


@dataclass(frozen=True, slots=True)
class FieldUse:
    """What an instruction does with a pc-relative field. `after`: bytes from the field to the instruction's end.
    `access`: bytes read or written there, 0 when only the address is taken."""

    after: int
    access: int


def is_padding(code: bytes) -> bool:
    """Whether these bytes do nothing: nops of any length as assemblers write them, int3, zeros."""
    return _PADDING.fullmatch(code) is not None


def takes_address(octets: U8, fields: I64) -> npt.NDArray[np.bool_]:
    """For each field position, whether it is the operand of `lea disp32(%rip)`; positions count in `octets`."""
    safe = np.maximum(fields, 2)
    result: npt.NDArray[np.bool_] = (octets[safe - 2] == 0x8D) & ((octets[safe - 1] & 0xC7) == 0x05) & (fields >= 2)
    return result


def is_plain_absolute(octets: U8, fields: I64) -> npt.NDArray[np.bool_]:
    """For each 32-bit absolute field, whether it is the whole address of a memory operand (SIB 25: no base and no
    index): read or written right there."""
    safe = np.maximum(fields, 2)
    result: npt.NDArray[np.bool_] = (octets[safe - 1] == 0x25) & ((octets[safe - 2] & 0xC7) == 0x04) & (fields >= 2)
    return result


def is_memory_operand(octets: U8, fields: I64) -> npt.NDArray[np.bool_]:
    """For each 32-bit pc-relative field, whether a ModRM byte `disp32(%rip)` stands before it (else: a branch)."""
    result: npt.NDArray[np.bool_] = (octets[np.maximum(fields, 1) - 1] & 0xC7) == 0x05
    return result & (fields >= 1)


def is_branch(octets: U8, fields: I64) -> npt.NDArray[np.bool_]:
    """For each 32-bit pc-relative field, whether `call`, `jmp` or a conditional jump stands before it."""
    last, before = octets[np.maximum(fields, 2) - 1], octets[np.maximum(fields, 2) - 2]
    result: npt.NDArray[np.bool_] = (last == 0xE8) | (last == 0xE9) | ((before == 0x0F) & (last & 0xF0 == 0x80))
    return result & (fields >= 2)


def immediate_sizes(octets: U8, fields: I64) -> I64:
    """Bytes of immediate behind each 32-bit pc-relative field: 0, 1, 2 or 4, or UNSURE.

    Columns: `octets` is the code (or the whole file), `fields` are positions in it.
    """
    at = np.maximum(fields, 6)
    opcode, modrm = octets[at - 2], octets[at - 1]
    sizes: I64 = _ONE_BYTE[opcode].astype(np.int64)
    # C7 is `mov $imm` with /0 only; 0F C7 (cmpxchg8b and others) has none.
    sizes[(opcode == 0xC7) & ((modrm >> 3) & 7 != 0)] = 0
    prefixed = (octets[at - 3] == 0x66) | (octets[at - 4] == 0x66)
    unsure = _DOUBTFUL[opcode] | ((sizes == 4) & prefixed)
    # Test and not/neg/mul/div share F6 and F7; only the first two of the eight have an immediate.
    unsure &= ~(((opcode == 0xF6) | (opcode == 0xF7)) & ((modrm >> 3) & 7 >= 2))
    # The maps whose every instruction has an immediate: 0F 3A, VEX map 3, EVEX map 3.
    unsure |= (octets[at - 3] == 0x3A) & (octets[at - 4] == 0x0F)
    unsure |= (octets[at - 5] == 0xC4) & (octets[at - 4] & 0x1F == 3)
    unsure |= (octets[at - 6] == 0x62) & (octets[at - 5] & 7 == 3)
    sizes[unsure] = UNSURE
    sizes[~is_memory_operand(octets, fields)] = 0
    sizes[fields < 6] = UNSURE
    return sizes


def field_uses(code: bytes, fields: Sequence[int]) -> dict[int, FieldUse]:
    """How the instructions of one function use the given fields (ascending offsets in `code`).

    Decoded from the function's start. A field that is in no instruction's displacement is left out.
    """
    uses: dict[int, FieldUse] = {}
    waiting = list(reversed(fields))
    for offset, size, _mnemonic, _operands in _plain().disasm_lite(code, 0):  # it is not read to the end
        while waiting and waiting[-1] < offset:
            waiting.pop()
        if not waiting:
            break
        if waiting[-1] < offset + size:
            field = waiting.pop()
            decoded = next(detailed_reader().disasm(code[offset : offset + size], offset, 1), None)
            # Not disp_size: capstone 5 says 2 behind a 66 prefix, where `disp32(%rip)` stays 4 bytes.
            if decoded is not None and decoded.disp_offset == field - offset:
                uses[field] = FieldUse(offset + size - field, _access(decoded))
    return uses


def instructions(code: bytes) -> list[Instruction]:
    """The instructions of a function in order; bytes that are none become one-byte `.byte` rows."""
    return list(map(Instruction._make, _lite(code)))


def branches(code: bytes) -> list[Branch]:
    """Every direct jump, conditional jump, loop and call of a function, with the offset it goes to."""
    found = []
    for offset, size, mnemonic, _operands in _lite(code):
        if mnemonic.startswith(("j", "call", "loop", "bnd", "notrack")):
            width = displacement_width(code[offset : offset + size])
            if width:
                field = offset + size - width
                displacement = int.from_bytes(code[field : offset + size], "little", signed=True)
                found.append(Branch(field, width, offset + size + displacement))
    return found


def local_fields(code: bytes) -> list[LocalField]:
    """Every direct branch and every operand `disp32(%rip)` of a function, with the offset that it means."""
    near = [
        LocalField(row.field, EdgeKind.BRANCH32 if row.width == 4 else EdgeKind.PCREL8, row.target)
        for row in branches(code)
    ]
    return near + [LocalField(field, EdgeKind.PCREL32, target) for field, target in operands_near(code)]


def branch_targets(code: bytes) -> list[int]:
    """Offsets in the function, or outside of it, that its direct branches and calls go to."""
    return [branch.target for branch in branches(code)]


def operands_near(code: bytes) -> list[tuple[int, int]]:
    """Every operand `disp32(%rip)` of a function: offset of its field, and the offset that it means."""
    found = []
    for offset, size, _mnemonic, operands in _lite(code):
        if "rip" in operands:
            decoded = next(detailed_reader().disasm(code[offset : offset + size], offset, 1), None)
            if decoded is not None and decoded.disp_offset:
                field = offset + int(decoded.disp_offset)
                displacement = int.from_bytes(code[field : field + 4], "little", signed=True)
                found.append((field, offset + size + displacement))
    return found


def possible_branches(octets: U8) -> tuple[I64, I64]:
    """Where the bytes look like a direct branch, and where it would go; sorted by that (SDM vol. 2, JMP, Jcc, LOOP)."""
    before = np.concatenate([np.zeros(1, np.uint8), octets[:-1]])
    near = (octets == 0xE8) | (octets == 0xE9) | ((octets & 0xF0 == 0x80) & (before == 0x0F))
    short = (octets == 0xEB) | (octets & 0xF0 == 0x70) | ((octets >= 0xE0) & (octets <= 0xE3))
    places, targets = [], []
    for chosen, width in ((near, 4), (short, 1)):
        place = np.flatnonzero(chosen)
        place = place[place + width < len(octets)]
        distance = np.zeros(len(place), np.int64)
        for byte in range(width):
            distance += octets[place + 1 + byte].astype(np.int64) << 8 * byte
        sign = np.int64(1) << 8 * width - 1
        places.append(place)
        targets.append(place + 1 + width + ((distance ^ sign) - sign))
    target = np.concatenate(targets)
    order = np.argsort(target, kind="stable")
    return np.concatenate(places)[order], target[order]


def stored_places(code: bytes) -> list[tuple[int, int]]:
    """Field and meaning of every `lea` of a place near the code, but for those of the very instruction (which is how
    large code finds its global offset table)."""
    near = [(field, target) for field, target in operands_near(code) if target != field - _LEA_BEFORE_FIELD]
    fields = np.array([field for field, _ in near], np.int64)
    taken = takes_address(np.frombuffer(code, np.uint8), fields).tolist() if near else []
    return [row for row, is_taken in zip(near, taken, strict=True) if is_taken]


def displacement_width(instruction: bytes) -> int:
    """Bytes of the displacement of a direct branch: 1, 4, or 0 when it is none (SDM vol. 2, JMP, Jcc, CALL, LOOP)."""
    body = instruction.lstrip(b"\x66\x2e\x3e\xf2\xf3\x67")
    if body and 0x40 <= body[0] <= 0x4F:
        body = body[1:]
    if len(body) == 5 and body[0] in (0xE8, 0xE9):
        return 4
    if len(body) == 6 and body[0] == 0x0F and 0x80 <= body[1] <= 0x8F:
        return 4
    if len(body) == 2 and (body[0] == 0xEB or 0x70 <= body[0] <= 0x7F or 0xE0 <= body[0] <= 0xE3):
        return 1
    return 0


def _access(decoded: Any) -> int:
    if decoded.mnemonic == "lea":
        return 0
    sizes = [operand.size for operand in decoded.operands if operand.type == capstone.x86.X86_OP_MEM]
    return max(sizes, default=0)


def _lite(code: bytes) -> Iterator[tuple[int, int, str, str]]:
    return iter(_whole(code) if len(code) <= _SHORT else _plain().disasm_lite(code, 0))


@lru_cache(128)
def _whole(code: bytes) -> tuple[tuple[int, int, str, str], ...]:
    """Several stages read the function that an edit changed."""
    return tuple(_plain().disasm_lite(code, 0))


@cache
def _plain() -> Any:
    reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    reader.skipdata = True
    return reader


@cache
def detailed_reader() -> Any:
    """capstone for 64-bit code, with operands and registers."""
    reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    reader.detail = True
    return reader
