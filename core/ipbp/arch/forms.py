"""What the number in a fixup's field is made of, when it is read out of linked code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.graph.columns import ColumnEnum
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, U8


class Form(ColumnEnum):
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
    CELL_ADDRESS = 10  # G + A: the cell at G holds S
    TLS_CELL_ADDRESS = 11  # G + A: the cell holds S - thread pointer


@dataclass(frozen=True, slots=True)
class Filled:
    """Blocks of an object and what memory has in their place, one behind the other, with their fixups.

    `expected`, `actual`: the bytes. Columns: `position` of each field in them, `place`: its load address; `kind`,
    `addend`; `thing`: a number for the block and the symbol, the same for fixups of one block with one target.
    """

    expected: U8
    actual: U8
    position: I64
    place: I64
    kind: U8
    addend: I64
    thing: I64


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


FORMS = np.zeros(max(EdgeKind) + 1, dtype=np.uint8)
for _kind, _form in {
    EdgeKind.ABS64: Form.ABSOLUTE,
    EdgeKind.ABS32: Form.ABSOLUTE,
    EdgeKind.WORD32: Form.ABSOLUTE,
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
    EdgeKind.IMAGE32: Form.GOT_OFFSET,
    EdgeKind.GOT_SLOT32: Form.GOT_CELL,
    EdgeKind.GOT_SLOT64: Form.GOT_CELL,
    EdgeKind.TPOFF32: Form.TLS_OFFSET,
    EdgeKind.TPOFF64: Form.TLS_OFFSET,
    EdgeKind.GOT_TPOFF32: Form.TLS_CELL,
    EdgeKind.DTPOFF32: Form.TLS_BLOCK,
    EdgeKind.DTPOFF64: Form.TLS_BLOCK,
}.items():
    FORMS[_kind] = _form
FORMS.setflags(write=False)


def whole_numbers(octets: U8, at: I64, width: I64, kind: U8) -> I64:
    """The little-endian number at each position, sign-extended except where the psABI extends with zeros."""
    wide = octets[at[:, None] + np.arange(8)].copy().view("<i8").ravel()
    shift = 64 - 8 * np.where(width == 0, 8, width)
    signed = (wide << shift) >> shift
    result: I64 = np.where(kind == EdgeKind.ABS32, wide & 0xFFFFFFFF, signed).astype(np.int64)
    return result
