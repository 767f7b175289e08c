"""What a linker may have made of an instruction, and so what the number in its field means.

An object asks for a pointer cell or for a call that finds a thread's variable; a linker that knows the answer
already writes a shorter way into the same bytes. Which rewritings exist is fixed (psABI appendix B "Linker
Optimization"; "ELF Handling For Thread-Local Storage" section 5): all of them are recognised here, nothing else is.

Columns: `expected` are the bytes of some blocks of an object, `actual` those in memory, one after the other;
`position` is where a fixup's field starts in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from ipbp.arch.x86_64 import WIDTH
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, U8

_MARGIN = 16
"""Bytes that must be readable around a field; the columns are padded by as much."""


class Form(IntEnum):
    """What the number in a field is made of."""

    NONE = 0  # nothing that tells an address
    PLACE = 1  # S + A - P
    ABSOLUTE = 2  # S + A
    CELL = 3  # G + A - P: the cell at G holds S
    TLS_OFFSET = 4  # S - thread pointer + A
    TLS_CELL = 5  # G + A - P: the cell holds S - thread pointer
    TLS_BLOCK = 6  # S - start of the TLS block + A; S - thread pointer + A when negative
    GOT_BASE = 7  # GOT + A - P
    GOT_OFFSET = 8  # S + A - GOT
    GOT_CELL = 9  # G + A - GOT: the cell at G holds S


_FORMS = np.zeros(max(EdgeKind) + 1, dtype=np.uint8)
for _kind, _form in {
    EdgeKind.ABS64: Form.ABSOLUTE,
    EdgeKind.ABS32: Form.ABSOLUTE,
    EdgeKind.ABS32S: Form.ABSOLUTE,
    EdgeKind.PCREL64: Form.PLACE,
    EdgeKind.PCREL32: Form.PLACE,
    EdgeKind.PCREL16: Form.PLACE,
    EdgeKind.PCREL8: Form.PLACE,
    EdgeKind.BRANCH32: Form.PLACE,
    EdgeKind.GOT_PCREL32: Form.CELL,
    EdgeKind.GOT_PCREL32_RELAX: Form.CELL,
    EdgeKind.GOT_PCREL32_REX_RELAX: Form.CELL,
    EdgeKind.GOT_PCREL32_REX2_RELAX: Form.CELL,
    EdgeKind.GOT_PCREL64: Form.CELL,
    EdgeKind.GOT_BASE_PCREL32: Form.GOT_BASE,
    EdgeKind.GOT_BASE_PCREL64: Form.GOT_BASE,
    EdgeKind.GOT_OFFSET64: Form.GOT_OFFSET,
    EdgeKind.PLT_OFFSET64: Form.GOT_OFFSET,
    EdgeKind.GOT_SLOT32: Form.GOT_CELL,
    EdgeKind.GOT_SLOT64: Form.GOT_CELL,
    EdgeKind.TPOFF32: Form.TLS_OFFSET,
    EdgeKind.TPOFF64: Form.TLS_OFFSET,
    EdgeKind.GOT_TPOFF32: Form.TLS_CELL,
    EdgeKind.DTPOFF32: Form.TLS_BLOCK,
    EdgeKind.DTPOFF64: Form.TLS_BLOCK,
}.items():
    _FORMS[_kind] = _form

_CELL_KINDS = (
    EdgeKind.GOT_PCREL32,
    EdgeKind.GOT_PCREL32_RELAX,
    EdgeKind.GOT_PCREL32_REX_RELAX,
    EdgeKind.GOT_PCREL32_REX2_RELAX,
)
_TLS_KINDS = (
    EdgeKind.TLS_GD32,
    EdgeKind.TLS_LD32,
    EdgeKind.GOT_TPOFF32,
    EdgeKind.TLSDESC_PCREL32,
    EdgeKind.TLSDESC_CALL,
)
_LOAD_TP = bytes.fromhex("64488b042500000000")  # mov %fs:0, %rax
_LEA_OFFSET = bytes.fromhex("488d80")  # lea <tpoff>(%rax), %rax
_ADD_CELL = bytes.fromhex("480305")  # add <gottpoff>(%rip), %rax
_LD_AS_LE = bytes.fromhex("666666") + _LOAD_TP
_XCHG = b"\x66\x90"  # xchg %ax, %ax: two bytes of nothing


@dataclass(frozen=True, slots=True)
class Fields:
    """One row a fixup. `position`, `width`: where its number really is; `form`, `addend`: what it means; `number`:
    the number. `masked`: one flag a byte of the columns, true where a linker's work stands and not the compiler's.
    """

    position: I64
    width: I64
    form: U8
    addend: I64
    number: I64
    masked: npt.NDArray[np.bool_]


def read_fields(expected: U8, actual: U8, position: I64, kind: U8, addend: I64) -> Fields:
    """How memory's bytes fill each field. A rewriting that is not among the known ones is left unmasked, so that
    the comparison sees it."""
    size = len(expected)
    before = np.concatenate([np.zeros(_MARGIN, np.uint8), expected, np.zeros(_MARGIN, np.uint8)])
    now = np.concatenate([np.zeros(_MARGIN, np.uint8), actual, np.zeros(_MARGIN, np.uint8)])
    at = position + _MARGIN
    form, extra = _FORMS[kind], addend.copy()
    masked = np.zeros(len(before), dtype=np.bool_)
    width = WIDTH[kind].astype(np.int64)
    for bytes_ in np.unique(width).tolist():
        masked[(at[width == bytes_][:, None] + np.arange(bytes_)).ravel()] = True
    _relax_cells(before, now, at, kind, form, extra, masked)
    for row in np.flatnonzero(np.isin(kind, _TLS_KINDS)).tolist():
        _relax_tls(before, now, at, kind, form, extra, masked, row)
    width[np.isin(kind, _TLS_KINDS)] = 4
    return Fields(at - _MARGIN, width, form, extra, _numbers(now, at, width, kind), masked[_MARGIN : _MARGIN + size])


def _numbers(octets: U8, at: I64, width: I64, kind: U8) -> I64:
    """The little-endian number at each position, sign-extended except where the psABI extends with zeros."""
    wide = octets[at[:, None] + np.arange(8)].copy().view("<i8").ravel()
    shift = 64 - 8 * np.where(width == 0, 8, width)
    signed = (wide << shift) >> shift
    result: I64 = np.where(kind == EdgeKind.ABS32, wide & 0xFFFFFFFF, signed).astype(np.int64)
    return result


def _relax_cells(before: U8, now: U8, at: I64, kind: U8, form: U8, addend: I64, masked: npt.NDArray[np.bool_]) -> None:
    """GOTPCREL, GOTPCRELX and their prefixed forms: the instruction that used a cell uses the thing itself. Changes
    `at`, `form`, `addend` and `masked` of the rows where that happened. Of a plain GOTPCREL GNU ld and gold make
    `lea` of `mov`, nothing else."""
    rows = np.flatnonzero(np.isin(kind, _CELL_KINDS))
    here = at[rows]
    opcode, modrm, new_opcode, new_modrm = before[here - 2], before[here - 1], now[here - 2], now[here - 1]
    register = (modrm >> 3) & 7
    is_plain = kind[rows] == EdgeKind.GOT_PCREL32
    has_rex = (kind[rows] == EdgeKind.GOT_PCREL32_REX_RELAX) | (kind[rows] == EdgeKind.GOT_PCREL32_REX2_RELAX)
    rex, new_rex = before[here - 3], now[here - 3]
    same_rex = ~has_rex | (rex == new_rex)
    # A register moves from ModRM.reg to ModRM.rm, its fourth bit from REX.R to REX.B; REX2 has a fifth bit, R4 and B4.
    high = np.where(kind[rows] == EdgeKind.GOT_PCREL32_REX2_RELAX, 0x44, 0x04)
    moved_rex = ~has_rex | (new_rex == ((rex & ~high) | ((rex & high) >> 2)))
    direct = 0xC0 | register
    lea = (opcode == 0x8B) & (new_opcode == 0x8D) & (new_modrm == modrm) & same_rex
    immediate = (opcode == 0x8B) & (new_opcode == 0xC7) & (new_modrm == direct) & moved_rex
    immediate |= (opcode == 0x85) & (new_opcode == 0xF7) & (new_modrm == direct) & moved_rex
    binary = ((opcode & 0xC7) == 3) & (new_opcode == 0x81) & (new_modrm == (0xC0 | (opcode & 0x38) | register))
    immediate |= binary & moved_rex
    branch = (modrm == 0x15) & (new_modrm == 0xE8) & ((new_opcode == 0x67) | (new_opcode == 0x90))  # addr32, nop: call
    branch |= (modrm == 0x25) & (new_modrm == 0xE9) & (new_opcode == 0x90)  # nop; jmp
    branch &= opcode == 0xFF
    shifted = (opcode == 0xFF) & (now[here + 3] == 0x90)  # jmp or call, then nop: the field moved one byte down
    shifted &= ((modrm == 0x25) & (new_opcode == 0xE9)) | ((modrm == 0x15) & (new_opcode == 0xE8))
    immediate, branch, shifted = immediate & ~is_plain, branch & ~is_plain, shifted & ~is_plain
    form[rows[lea | branch | shifted]] = Form.PLACE
    form[rows[immediate]] = Form.ABSOLUTE
    addend[rows[immediate]] += 4  # an immediate does not count from the instruction's end
    at[rows[shifted]] -= 1
    changed = here[lea | immediate | branch | shifted]
    masked[changed - 1] = True
    masked[changed - 2] = True
    masked[here[immediate & has_rex] - 3] = True


def _relax_tls(
    before: U8, now: U8, at: I64, kind: U8, form: U8, addend: I64, masked: npt.NDArray[np.bool_], row: int
) -> None:
    """One thread-local fixup: general and local dynamic, initial executable and descriptors as their cheaper forms."""
    here = int(at[row])
    old, new = before[here - 4 : here + 12].tobytes(), now[here - 4 : here + 12].tobytes()
    if kind[row] == EdgeKind.TLS_GD32 and new.startswith(_LOAD_TP):
        middle = new[9:12]
        if middle in (_LEA_OFFSET, _ADD_CELL):
            form[row] = Form.TLS_OFFSET if middle == _LEA_OFFSET else Form.TLS_CELL
            addend[row] += 4 if middle == _LEA_OFFSET else 0
            at[row] = here + 8
            _swallow(at, form, masked, row, here - 4, 16, here + 8)
    elif kind[row] == EdgeKind.TLS_LD32:
        through_cell = old[8:10] == b"\xff\x15"
        shape = (b"\x66" if through_cell else b"") + _LD_AS_LE
        if now[here - 3 : here - 3 + len(shape)].tobytes() == shape:
            _swallow(at, form, masked, row, here - 3, len(shape), here + (6 if through_cell else 5))
    elif kind[row] == EdgeKind.GOT_TPOFF32 and old[2:4] != new[2:4]:
        _relax_initial_exec(old, new, here, form, addend, masked, row)
    elif kind[row] == EdgeKind.TLSDESC_PCREL32 and old[2] == 0x8D:
        direct = bytes([0xC7, 0xC0 | (old[3] >> 3 & 7)])
        if new[2:4] == direct and new[1] == _rex_moved(old[1]):
            form[row] = Form.TLS_OFFSET
            addend[row] += 4
            masked[here - 3 : here] = True
        elif new[1:4] == bytes([old[1], 0x8B, old[3]]):
            form[row] = Form.TLS_CELL
            masked[here - 2] = True
    elif kind[row] == EdgeKind.TLSDESC_CALL and new[4:6] == _XCHG:
        masked[here : here + 2] = True


def _relax_initial_exec(
    old: bytes, new: bytes, here: int, form: U8, addend: I64, masked: npt.NDArray[np.bool_], row: int
) -> None:
    register = old[3] >> 3 & 7
    shapes = {
        0x8B: [bytes([_rex_moved(old[1]), 0xC7, 0xC0 | register])],  # mov $tpoff, %reg
        0x03: [
            bytes([old[1] | (old[1] & 4) >> 2, 0x8D, 0x80 | register << 3 | register]),  # lea tpoff(%reg), %reg
            bytes([_rex_moved(old[1]), 0x81, 0xC0 | register]),  # add $tpoff, %reg
        ],
    }
    if new[1:4] in shapes.get(old[2], ()):
        form[row] = Form.TLS_OFFSET
        addend[row] += 4
        masked[here - 3 : here] = True


def _rex_moved(rex: int) -> int:
    return rex & 0xFB | (rex & 4) >> 2


def _swallow(
    at: I64, form: U8, masked: npt.NDArray[np.bool_], row: int, start: int, size: int, call_field: int
) -> None:
    """The rewriting took the call to __tls_get_addr along, whose fixup is the next row."""
    masked[start : start + size] = True
    if row + 1 < len(at) and at[row + 1] == call_field:
        form[row + 1] = Form.NONE
