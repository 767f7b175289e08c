"""What the numbers in linked A64 instructions mean, and what a linker may have made of an instruction.

An address stands in two instructions, its page and its low twelve bits, and only both tell it: the fixups of one block
that lead to one symbol are read together. Linkers that know the answer write shorter ways into the same words (ELF for
the Arm 64-bit Architecture, "Code relaxations"): all of them are recognised here, nothing else is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.arch.aarch64_code import NOP, WORD
from ipbp.arch.aarch64_tls import ACCESSES, MOVK_G0, MOVZ_G1, OFFSETS
from ipbp.arch.fields import FIELD_BITS, PAGE, WIDTH, part_of_word, words_of
from ipbp.arch.forms import FORMS, Fields, Filled, Form, whole_numbers
from ipbp.graph.columns import I64, U8, Flags
from ipbp.graph.edges import EdgeKind

_DISTANCES = (
    EdgeKind.BRANCH26,
    EdgeKind.BRANCH19,
    EdgeKind.BRANCH14,
    EdgeKind.LITERAL19,
    EdgeKind.ADDRESS21,
)
_LOWS = (
    EdgeKind.LOW12,
    EdgeKind.LOW12_OF_8,
    EdgeKind.LOW12_OF_16,
    EdgeKind.LOW12_OF_32,
    EdgeKind.LOW12_OF_64,
    EdgeKind.LOW12_OF_128,
)
_PAGES = (EdgeKind.PAGE21, EdgeKind.PAGE21_UNCHECKED)
_MOVES = tuple(kind for kind in EdgeKind if EdgeKind.MOVE_G0 <= kind <= EdgeKind.MOVE_G3)
_ADR, _ADR_BITS = 0x10000000, 0x9F000000
_ADD, _ADD_BITS = 0x91000000, 0xFFC00000  # add xd, xn, #imm12
_LOAD = 0xF9400000  # ldr xd, [xn, #imm12]
_MOVE_BITS = 0xFFE00000
# ldr and ldrsw with an offset in the page -> the same of a literal: w, x, sw, s, d, q.
_LITERALS = (
    (0xB9400000, 0x18000000),
    (0xF9400000, 0x58000000),
    (0xB9800000, 0x98000000),
    (0xBD400000, 0x1C000000),
    (0xFD400000, 0x5C000000),
    (0x3DC00000, 0x9C000000),
)
_LITERAL_BITS = 0xFF000000


def read_fields(filled: Filled) -> Fields:
    """How memory's words fill each field. A rewriting that is not among the known ones is left unmasked, so that the
    comparison sees it."""
    return _Reader(filled).run()


@dataclass(frozen=True, slots=True)
class _Partners:
    """Rows of one block and symbol in which an address is made of parts. For each of the rows `row`: `high`, `low`: the
    row that holds the page and one that holds the low bits, -1 for none."""

    row: I64
    high: I64
    low: I64


class _Reader:
    """`before`, `now`: the words of each fixup's instruction in the object and in memory; 0 for fields of data."""

    def __init__(self, filled: Filled) -> None:
        self.filled, self.kind = filled, filled.kind
        self.in_word = FIELD_BITS[self.kind] != -1
        self.in_word |= self.kind == EdgeKind.TLSDESC_CALL
        self.before, self.now = self._words(filled.expected), self._words(filled.actual)
        self.part = part_of_word(self.kind, self.now)
        self.form: U8 = np.where(self.in_word, 0, FORMS[self.kind]).astype(np.uint8)
        self.number = np.zeros(len(self.kind), dtype=np.int64)
        self.as_written: Flags = self.in_word & ((self.before ^ self.now) & ~FIELD_BITS[self.kind] == 0)
        self.as_written[self.kind == EdgeKind.TLSDESC_CALL] = False
        self.known_change: Flags = np.zeros(len(self.kind), dtype=np.bool_)

    def run(self) -> Fields:
        filled, width = self.filled, WIDTH[self.kind].astype(np.int64)
        padded = np.concatenate([filled.actual, np.zeros(8, np.uint8)])
        data = ~self.in_word
        self.number[data] = whole_numbers(padded, filled.position[data], width[data], self.kind[data])
        self._distances()
        self._addresses()
        self._cells()
        self._thread_offsets()
        self._moves()
        masked = np.zeros(len(filled.expected), dtype=np.bool_)
        for bytes_ in np.unique(width[data]).tolist():
            rows = data & (width == bytes_)
            masked[(filled.position[rows][:, None] + np.arange(bytes_)).ravel()] = True
        same = self.as_written | self.known_change
        masked[(filled.position[same][:, None] + np.arange(WORD)).ravel()] = True
        return Fields(filled.position, width, self.form, filled.addend, self.number, masked)

    def _words(self, octets: U8) -> I64:
        result = np.zeros(len(self.kind), dtype=np.int64)
        rows = np.flatnonzero(self.in_word)
        result[rows] = words_of(octets[self.filled.position[rows][:, None] + np.arange(WORD)])
        return result

    def _say(self, rows: npt.NDArray[np.intp], form: Form, number: I64) -> None:
        self.form[rows], self.number[rows] = form, number

    def _distances(self) -> None:
        rows = np.flatnonzero(np.isin(self.kind, _DISTANCES) & self.as_written)
        self._say(rows, Form.PLACE, self.part[rows])
        rows = np.flatnonzero((self.kind == EdgeKind.GOT_LITERAL19) & self.as_written)
        self._say(rows, Form.CELL, self.part[rows])
        # A call of a weak name that nothing defines is nothing.
        self.known_change |= (self.kind == EdgeKind.BRANCH26) & (self.now == NOP)

    def _addresses(self) -> None:
        """`adrp` with the `add`, load or store that it belongs to, or what lld and mold make of `adrp` and `add`."""
        parts = self._partners(_PAGES, _LOWS)
        page = self._pages(self.kind, _PAGES)
        self._join(parts, page, Form.PLACE)
        self._short_addresses(parts)

    def _cells(self) -> None:
        """A cell is reached as an address is; a linker that knows what it holds makes `add` of the load."""
        parts = self._partners((EdgeKind.GOT_PAGE21,), (EdgeKind.GOT_LOW12,))
        is_load = (self.kind == EdgeKind.GOT_LOW12) & (self.before & _ADD_BITS == _LOAD)
        direct = is_load & (self.now & _ADD_BITS == _ADD) & (self.before & 0x3FF == self.now & 0x3FF)
        self.known_change |= direct
        self.part[direct] >>= 3  # `add` counts in bytes
        low_is_direct = np.zeros(len(parts.row), dtype=np.bool_)
        low_is_direct[parts.low >= 0] = direct[parts.low[parts.low >= 0]]
        page = self._pages(self.kind, (EdgeKind.GOT_PAGE21,))
        for chosen, form in ((~low_is_direct, Form.CELL_ADDRESS), (low_is_direct, Form.PLACE)):
            self._join(_Partners(parts.row[chosen], parts.high[chosen], parts.low[chosen]), page, form)
        self._short_addresses(parts)

    def _thread_offsets(self) -> None:
        high = (EdgeKind.TP_HIGH12,)
        lows = tuple(kind for kind in OFFSETS if kind > EdgeKind.TP_HIGH12)
        parts = self._partners(high, lows)
        whole = np.where(self.kind == EdgeKind.TP_HIGH12, self.part, 0)
        self._join(parts, np.where(self.as_written, whole, -1), Form.TLS_OFFSET)
        alone = np.flatnonzero((self.kind == EdgeKind.TP_LOW12) & self.as_written)
        self._say(alone, Form.TLS_OFFSET, self.part[alone])
        cells = self._partners((EdgeKind.GOT_TP_PAGE21,), (EdgeKind.GOT_TP_LOW12,))
        self._join(cells, self._pages(self.kind, (EdgeKind.GOT_TP_PAGE21,)), Form.TLS_CELL_ADDRESS)
        self._known_offsets()

    def _known_offsets(self) -> None:
        """`movz` and `movk`, or a cell, where the object asks a cell or a descriptor."""
        asked = np.isin(self.kind, ACCESSES)
        if not asked.any():
            return
        highs, lows = (
            (EdgeKind.GOT_TP_PAGE21, EdgeKind.TLSDESC_PAGE21),
            (
                EdgeKind.GOT_TP_LOW12,
                EdgeKind.TLSDESC_LOW12_LOAD,
            ),
        )
        nothing = np.isin(self.kind, (EdgeKind.TLSDESC_LOW12, EdgeKind.TLSDESC_CALL))
        self.known_change |= nothing & (self.now == NOP)
        self.as_written |= (self.kind == EdgeKind.TLSDESC_CALL) & (self.before == self.now)
        g1 = np.isin(self.kind, highs) & (self.now & _MOVE_BITS == MOVZ_G1)
        g0 = np.isin(self.kind, lows) & (self.now & _MOVE_BITS == MOVK_G0)
        cell = (self.kind == EdgeKind.TLSDESC_LOW12_LOAD) & (self.now & 0xFFC003FF == _LOAD)  # ldr x0, [x0, #imm12]
        self.known_change |= g1 | g0 | cell
        self.part[g0] = self.now[g0] >> 5 & 0xFFFF
        pairs = [self._partners((high,), (low,)) for high, low in zip(highs, lows, strict=True)]
        for parts in pairs:
            known = (parts.high >= 0) & (parts.low >= 0)
            rows, high, low = parts.row[known], parts.high[known], parts.low[known]
            moved = g1[high] & g0[low]
            offset = (self.now[high] >> 5 & 0xFFFF) << 16 | self.part[low]
            signed = (offset ^ 1 << 31) - (1 << 31)
            shift = self.filled.addend[rows] - self.filled.addend[low]
            self._say(rows[moved], Form.TLS_OFFSET, (signed + shift)[moved])
        page = self._pages(self.kind, (EdgeKind.TLSDESC_PAGE21,))
        has_cell = np.zeros(len(pairs[1].row), dtype=np.bool_)
        has_cell[pairs[1].low >= 0] = cell[pairs[1].low[pairs[1].low >= 0]]
        chosen = _Partners(pairs[1].row[has_cell], pairs[1].high[has_cell], pairs[1].low[has_cell])
        self._join(chosen, page, Form.TLS_CELL_ADDRESS)

    def _moves(self) -> None:
        """An address in four parts of 16 bits (the large code model)."""
        rows = np.flatnonzero(np.isin(self.kind, _MOVES) & self.as_written)
        if len(rows) == 0:
            return
        key = np.stack([self.filled.thing[rows], self.filled.addend[rows]], axis=1)
        _, owner = np.unique(key, axis=0, return_inverse=True)
        owner, whole = owner.ravel(), np.zeros(int(owner.max()) + 1, dtype=np.int64)
        np.bitwise_or.at(whole, owner, self.part[rows])
        complete = np.bincount(owner[self.kind[rows] == EdgeKind.MOVE_G3], minlength=len(whole)) > 0
        told = complete[owner]
        self._say(rows[told], Form.ABSOLUTE, whole[owner][told])

    def _pages(self, kind: U8, pages: tuple[EdgeKind, ...]) -> I64:
        """The page that each `adrp` of these kinds means, -1 for all other rows. Some linkers work around an erratum of
        Cortex-A53 (843419) by `adr` of the page."""
        here, place = np.isin(kind, pages), self.filled.place
        page = (place & -PAGE) + self.part
        is_adr = here & (self.now & _ADR_BITS == _ADR) & (self.now & 31 == self.before & 31)
        near = place + (self.part >> 12)
        self.known_change |= is_adr & (near & PAGE - 1 == 0)
        page = np.where(is_adr, np.where(near & PAGE - 1 == 0, near, -1), page)
        return np.where(here & (self.as_written | is_adr), page, -1)

    def _partners(self, highs: tuple[EdgeKind, ...], lows: tuple[EdgeKind, ...]) -> _Partners:
        high, low = np.isin(self.kind, highs), np.isin(self.kind, lows)
        row, thing = np.flatnonzero(high | low), self.filled.thing
        columns = []
        for kinds in (high, low):
            rows = np.flatnonzero(kinds)
            known, first = np.unique(thing[rows], return_index=True)
            at = np.minimum(np.searchsorted(known, thing[row]), max(len(known) - 1, 0))
            found = known[at] == thing[row] if len(known) else np.zeros(len(row), dtype=np.bool_)
            columns.append(np.where(found, rows[first[at]] if len(known) else 0, -1))
        # A row stands for itself.
        columns[0] = np.where(high[row], row, columns[0])
        columns[1] = np.where(low[row], row, columns[1])
        return _Partners(row.astype(np.int64), columns[0].astype(np.int64), columns[1].astype(np.int64))

    def _join(self, parts: _Partners, page: I64, form: Form) -> None:
        """The whole number of both parts: S + A1 lies in the page, S + A2 ends in the low bits."""
        known = (parts.high >= 0) & (parts.low >= 0)
        row, high, low = parts.row[known], parts.high[known], parts.low[known]
        sure = (page[high] != -1) & (self.as_written[low] | self.known_change[low])
        row, high, low = row[sure], high[sure], low[sure]
        addend = self.filled.addend
        start = page[high] + (self.part[low] - addend[low] + addend[high] & PAGE - 1) - addend[high]
        # An address that code makes by a distance is one, wherever the loader has not been yet.
        counted_from = self.filled.place[row] if form == Form.PLACE else 0
        self._say(row, form, start + addend[row] - counted_from)

    def _short_addresses(self, parts: _Partners) -> None:
        """`nop` and `adr` in place of `adrp` and `add`, or of `adrp` and the load of a cell."""
        known = (parts.high >= 0) & (parts.low >= 0)
        rows, high, low = parts.row[known], parts.high[known], parts.low[known]
        is_adr = (self.now[high] == NOP) & (self.now[low] & _ADR_BITS == _ADR)
        is_adr &= (self.now[low] & 31) == (self.before[low] & 31)
        rows, high, low = rows[is_adr], high[is_adr], low[is_adr]
        self._say_distance(low, high, EdgeKind.ADDRESS21)
        self._follow_hints(parts.row[known], parts.high[known], parts.low[known])

    def _follow_hints(self, rows: I64, high: I64, low: I64) -> None:
        """What Mach-O linkers make of the pairs that the compiler points out to them (LC_LINKER_OPTIMIZATION_HINT):
        `adr` and `nop` of `adrp` and `add`, `nop` and a load of a literal of `adrp` and a load (a cell's, too)."""
        target = self.before[low] & 31
        is_cell = self.kind[low] == EdgeKind.GOT_LOW12
        is_add = self.before[low] & _ADD_BITS == _ADD
        is_adr = (is_add | is_cell) & (self.now[high] & _ADR_BITS == _ADR) & (self.now[low] == NOP)
        is_adr &= self.now[high] & 31 == target
        self._say_distance(high[is_adr], low[is_adr], EdgeKind.ADDRESS21)
        literal = np.zeros(len(rows), dtype=np.int64)
        for load, of_literal in _LITERALS:
            literal[self.before[low] & _ADD_BITS == load] = of_literal
        is_load = (literal != 0) & (self.now[high] == NOP) & (self.now[low] & _LITERAL_BITS == literal)
        is_load &= self.now[low] & 31 == target
        for chosen, form in ((is_load & ~is_cell, Form.PLACE), (is_load & is_cell, Form.CELL)):
            self._say_distance(low[chosen], high[chosen], EdgeKind.LITERAL19, form)

    def _say_distance(self, rows: I64, nothing: I64, kind: EdgeKind, form: Form = Form.PLACE) -> None:
        """The instructions of `rows` hold the whole distance, those of `nothing` are no more: what they were for is
        what the others tell."""
        self.known_change[rows] = self.known_change[nothing] = True
        distance = part_of_word(np.full(len(rows), kind, np.uint8), self.now[rows])
        self._say(rows, form, distance)
        addend, place = self.filled.addend, self.filled.place
        target = place[rows] + distance - addend[rows]
        self._say(nothing, form, target + addend[nothing] - place[nothing])
