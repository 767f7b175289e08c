"""What a linker may have made of an instruction, and so what the number in its field means.

An object asks for a pointer cell or for a call that finds a thread's variable; a linker that knows the answer
already writes a shorter way into the same bytes. Which rewritings exist is fixed (psABI appendix B "Linker
Optimization"; "ELF Handling For Thread-Local Storage" section 5): all of them are recognised here, nothing else is.

Columns: `expected` are the bytes of some blocks of an object, `actual` those in memory, one after the other;
`position` is where a fixup's field starts in both.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipbp.arch.fields import WIDTH
from ipbp.arch.forms import FORMS, Fields, Filled, Form, whole_numbers
from ipbp.arch.rewriting import NONE
from ipbp.arch.x86_64_tls import ACCESSES, initial_exec, local_exec
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, U8
from ipbp.graph.rows import is_one_of

_MARGIN = 32
"""Bytes that must be readable around a field; the columns are padded by as much."""
_WINDOW = 2 * _MARGIN


_CELL_KINDS = (
    EdgeKind.GOT_PCREL32,
    EdgeKind.GOT_PCREL32_RELAX,
    EdgeKind.GOT_PCREL32_REX_RELAX,
    EdgeKind.GOT_PCREL32_REX2_RELAX,
)


def read_fields(filled: Filled) -> Fields:
    """How memory's bytes fill each field. A rewriting that is not among the known ones is left unmasked, so that
    the comparison sees it."""
    size, kind = len(filled.expected), filled.kind
    before = np.concatenate([np.zeros(_MARGIN, np.uint8), filled.expected, np.zeros(_MARGIN, np.uint8)])
    now = np.concatenate([np.zeros(_MARGIN, np.uint8), filled.actual, np.zeros(_MARGIN, np.uint8)])
    at = filled.position + _MARGIN
    form, extra = FORMS[kind], filled.addend.copy()
    masked = np.zeros(len(before), dtype=np.bool_)
    width = WIDTH[kind].astype(np.int64)
    for bytes_ in np.unique(width).tolist():
        masked[(at[width == bytes_][:, None] + np.arange(bytes_)).ravel()] = True
    _relax_cells(before, now, at, kind, form, extra, masked)
    for row in np.flatnonzero(is_one_of(kind, ACCESSES)).tolist():
        _relax_tls(before, now, at, kind, form, extra, masked, row)
    width[is_one_of(kind, ACCESSES)] = 4
    return Fields(
        at - _MARGIN, width, form, extra, whole_numbers(now, at, width, kind), masked[_MARGIN : _MARGIN + size]
    )


def _relax_cells(before: U8, now: U8, at: I64, kind: U8, form: U8, addend: I64, masked: npt.NDArray[np.bool_]) -> None:
    """GOTPCREL, GOTPCRELX and their prefixed forms: the instruction that used a cell uses the thing itself. Changes
    `at`, `form`, `addend` and `masked` of the rows where that happened. Of a plain GOTPCREL GNU ld and gold make
    `lea` of `mov`, nothing else."""
    rows = np.flatnonzero(is_one_of(kind, _CELL_KINDS))
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
    """One thread-local access, when memory holds one of its rewritings. Changes what `_relax_cells` does."""
    first = max(int(at[row]) - _MARGIN, 0)
    here = int(at[row]) - first
    old, new = before[first : first + _WINDOW].tobytes(), now[first : first + _WINDOW].tobytes()
    rewritings = (*local_exec(kind[row], old, here), *initial_exec(kind[row], old, here))
    found = next((rewriting for rewriting in rewritings if rewriting.stands_in(new)), None)
    if found is None:
        return
    masked[first + found.start : first + found.end] = True
    if found.call != NONE and row + 1 < len(at) and at[row + 1] == first + found.call:
        form[row + 1] = Form.NONE  # the call of __tls_get_addr went along
    if found.field != NONE:
        at[row] = first + found.field
        form[row] = Form.TLS_CELL if found.through_cell else Form.TLS_OFFSET
        addend[row] += 0 if found.through_cell else 4
