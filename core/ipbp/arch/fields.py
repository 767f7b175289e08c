"""Fixup fields as columns, indexed by edge kind; writing many of them at once, and telling which results do not fit.

Columns in, columns out: a patch of a large translation unit has tens of thousands of fields, most of them in its
debug information. A kind belongs to one machine or means the same on all, so the columns serve all machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ipbp.arch import aarch64, x86_64
from ipbp.arch.edge_rows import HIGHEST, EdgeRow, Encoding
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, U8

ROWS: Mapping[EdgeKind, EdgeRow] = MappingProxyType({row.kind: row for row in (*x86_64.ROWS, *aarch64.ROWS)})
"""Every kind has a row."""


def _wide(values: Mapping[EdgeKind, int]) -> I64:
    column = np.zeros(max(EdgeKind) + 1, dtype=np.int64)
    for kind, value in values.items():
        column[kind] = value
    column.setflags(write=False)
    return column


def _column(values: Mapping[EdgeKind, int]) -> U8:
    column = _wide(values).astype(np.uint8)
    column.setflags(write=False)
    return column


WIDTH = _column({kind: row.width for kind, row in ROWS.items()})
"""Width in bytes, indexed by kind: `WIDTH[edges.kind]` is a column."""

PC_RELATIVE = _column({kind: int(row.pc_relative) for kind, row in ROWS.items()})
"""1 where the equation counts from P or its page, indexed by kind."""

GOT_RELATIVE = _column({kind: int(row.got_relative) for kind, row in ROWS.items()})
"""1 where the equation ends in the image's base (`- GOT`, `- B`), indexed by kind."""

PAGES = _column({kind: int(row.is_of_pages) for kind, row in ROWS.items()})
"""1 where the equation is a distance between pages, indexed by kind."""

PAGE_BITS = 12
PAGE = 1 << PAGE_BITS

_IN_PLACE: Mapping[Encoding, int] = MappingProxyType(
    {
        Encoding.WHOLE: -1,
        Encoding.IMM26: 0x03FFFFFF,
        Encoding.IMM19: 0x00FFFFE0,
        Encoding.IMM14: 0x0007FFE0,
        Encoding.IMM12: 0x003FFC00,
        Encoding.IMM16: 0x001FFFE0,
        Encoding.IMM16_SIGNED: 0x401FFFE0,
        Encoding.PAGE: 0x60FFFFE0,
    }
)
FIELD_BITS = _wide({kind: _IN_PLACE[row.encoding] for kind, row in ROWS.items()})
"""Which bits of the field hold the result, indexed by kind; -1 for all of them."""

_ENCODING = _column({kind: int(row.encoding) for kind, row in ROWS.items()})
_SHIFT = _column({kind: row.shift for kind, row in ROWS.items()})
_UNALIGNED = _wide({kind: row.alignment - 1 for kind, row in ROWS.items()})
_LOWEST = _wide({kind: max(row.lowest, -HIGHEST - 1) for kind, row in ROWS.items()})
_HIGHEST = _wide({kind: min(row.highest, HIGHEST) for kind, row in ROWS.items()})


def out_of_range(kind: U8, value: I64) -> npt.NDArray[np.bool_]:
    """For each result, whether the field of its kind cannot hold it, because it is too large or not aligned."""
    result: npt.NDArray[np.bool_] = (value < _LOWEST[kind]) | (value > _HIGHEST[kind])
    result |= (value & _UNALIGNED[kind]) != 0
    return result


def results(kind: U8, target: I64, place: I64) -> I64:
    """`target` counted from `place` where the kind's equation does that; the addend is in `target`."""
    counted = PC_RELATIVE[kind] != 0
    if not PAGES[kind].any():
        return np.where(counted, target - place, target)
    pages = PAGES[kind] != 0
    target, place = np.where(pages, target & -PAGE, target), np.where(pages, place & -PAGE, place)
    return np.where(counted, target - place, target)


def write_fields(octets: U8, place: I64, kind: U8, value: I64) -> U8:
    """A copy of `octets` in which the field at each `place` holds `value`, as far as its kind takes it.

    Errors: IndexError when a field is not inside `octets`.
    """
    written = octets.copy()
    widths, encodings = WIDTH[kind], _ENCODING[kind]
    in_parts = encodings != Encoding.WHOLE
    if in_parts.any():
        rows = np.flatnonzero(in_parts)
        _write_parts(written, place[rows], kind[rows], value[rows])
        widths = np.where(in_parts, 0, widths)
    for width in (1, 2, 4, 8):
        rows = np.flatnonzero(widths == width)
        places, values = place[rows], value[rows].astype("<i8").view(np.uint8).reshape(-1, 8)
        for byte in range(width):
            written[places + byte] = values[:, byte]
    return written


def clear_fields(octets: U8, place: I64, kind: U8) -> None:
    """Zeros, in `octets` itself, in the bits that hold the results of these fixups and nowhere else."""
    widths, bits = WIDTH[kind], FIELD_BITS[kind]
    for width in np.flatnonzero(np.bincount(widths)).tolist():
        rows = widths == width
        places, kept = place[rows], ~bits[rows]
        for byte in range(width):
            octets[places + byte] &= (kept >> 8 * byte & 0xFF).astype(np.uint8)


def read_words(octets: U8, place: I64) -> I64:
    """The little-endian 32-bit word at each place, which need not be aligned."""
    return words_of(octets[place[:, None] + np.arange(4)])


def words_of(rows: U8) -> I64:
    """The little-endian number in each row of four bytes."""
    result: I64 = np.ascontiguousarray(rows).view("<u4").ravel().astype(np.int64)
    return result


def part_of_word(kind: U8, word: I64) -> I64:
    """The number in each instruction's field of its kind: signed for distances, scaled as the result was."""
    encoding, result = _ENCODING[kind], np.zeros(len(word), dtype=np.int64)
    for code, (shift, bits) in _PARTS.items():
        rows = encoding == code
        result[rows] = word[rows] >> shift & (1 << bits) - 1
    adr = encoding == Encoding.PAGE
    result[adr] = (word[adr] >> 5 & 0x7FFFF) << 2 | (word[adr] >> 29 & 3)
    for code, bits in _SIGNED.items():
        rows = encoding == code
        result[rows] = (result[rows] ^ 1 << bits - 1) - (1 << bits - 1)
    return result << _SHIFT[kind].astype(np.int64)


def part_of(kind: EdgeKind) -> tuple[int, int, int]:
    """What of an instruction holds which part of a number: how many bits, from which bit on, and from which of the
    number's. Zeros for a field that holds all of it."""
    row = ROWS[kind]
    if row.encoding == Encoding.WHOLE:
        return 0, 0, 0
    at, bits = _PARTS[row.encoding]
    return bits, at, row.shift


_PARTS = {
    Encoding.IMM26: (0, 26),
    Encoding.IMM19: (5, 19),
    Encoding.IMM14: (5, 14),
    Encoding.IMM12: (10, 12),
    Encoding.IMM16: (5, 16),
    Encoding.IMM16_SIGNED: (5, 16),
}
_SIGNED = {Encoding.IMM26: 26, Encoding.IMM19: 19, Encoding.IMM14: 14, Encoding.PAGE: 21}
_MOVZ = 1 << 30  # the bit in which movz differs from movn


def _write_parts(octets: U8, place: I64, kind: U8, value: I64) -> None:
    fields = place[:, None] + np.arange(4)
    word: I64 = words_of(octets[fields]) & ~FIELD_BITS[kind]
    encoding = _ENCODING[kind]
    signed = encoding == Encoding.IMM16_SIGNED
    word[signed & (value >= 0)] |= _MOVZ
    shifts: I64 = _SHIFT[kind].astype(np.int64)
    # Of an address a load or store takes the place in its page, counted in what it loads.
    in_page = (encoding == Encoding.IMM12) & (shifts < PAGE_BITS)
    value = np.where(signed & (value < 0), ~value, np.where(in_page, value & PAGE - 1, value)) >> shifts
    for code, (shift, bits) in _PARTS.items():
        rows = encoding == code
        word[rows] |= (value[rows] & (1 << bits) - 1) << shift
    adr = encoding == Encoding.PAGE
    word[adr] |= (value[adr] & 3) << 29 | (value[adr] >> 2 & 0x7FFFF) << 5
    octets[fields] = word.astype("<u4").view(np.uint8).reshape(-1, 4)
