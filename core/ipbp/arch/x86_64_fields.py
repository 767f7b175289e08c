"""x86-64: writing many fixup fields at once, and telling which results do not fit.

Columns in, columns out: a patch of a large translation unit has tens of thousands of fields, most of them in its
debug information.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipbp.arch.x86_64 import ROWS, WIDTH
from ipbp.graph.model import I64, U8

_LOWEST = np.zeros(len(WIDTH), dtype=np.int64)
_HIGHEST = np.zeros(len(WIDTH), dtype=np.int64)
for _row in ROWS.values():
    # A result is a signed 64-bit number here; what fits in eight bytes always fits.
    _LOWEST[_row.kind] = max(_row.lowest, -(1 << 63))
    _HIGHEST[_row.kind] = min(_row.highest, (1 << 63) - 1)


def out_of_range(kind: U8, value: I64) -> npt.NDArray[np.bool_]:
    """For each result, whether the field of its kind cannot hold it."""
    result: npt.NDArray[np.bool_] = (value < _LOWEST[kind]) | (value > _HIGHEST[kind])
    return result


def write_fields(octets: U8, place: I64, kind: U8, value: I64) -> U8:
    """A copy of `octets` in which the field at each `place` holds the low bytes of `value`, little-endian.

    Errors: IndexError when a field is not inside `octets`.
    """
    written = octets.copy()
    widths = WIDTH[kind]
    for width in (1, 2, 4, 8):
        rows = np.flatnonzero(widths == width)
        fields = place[rows, None] + np.arange(width)
        written[fields] = value[rows].astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    return written
