"""Names as columns: a file's string table and where each name lies in it.

An object or a program has as many names as it has symbols, and next to none of them is ever shown or even looked at
alone. A name becomes a `str` when it is asked for; everything else is done to all of them at once. Bytes that are not
UTF-8 survive as surrogates (PEP 383), so different names stay different.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from ipbp.graph.columns import I32, I64, U64, Flags
from ipbp.graph.rows import ByteRows, byte_rows, intern, words_at

_DOT, _AT = 0x2E, 0x40
_FEW = 4
"""Names that are looked for one after the other."""
_SPARSE = 256
"""Bytes of the buffer for each name, beyond which looking at name after name is quicker than through all of it."""


class Names(Sequence[str]):
    """A sequence of `str` that is stored as `rows`."""

    __slots__ = ("_first_word", "rows")

    def __init__(self, rows: ByteRows) -> None:
        self.rows = rows
        self._first_word: U64 | None = None

    @staticmethod
    def of(names: Iterable[str]) -> Names:
        """The names of a list."""
        return Names(byte_rows([name.encode("utf-8", "surrogateescape") for name in names]))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        return self.rows.of(row).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        first, whole = self._stretch()
        starts, lengths = np.maximum(self.rows.start - first, 0).tolist(), self.rows.length.tolist()
        for start, length in zip(starts, lengths, strict=True):
            yield whole[start : start + length].decode("utf-8", "surrogateescape")

    def take(self, rows: I64 | I32 | Flags) -> Names:
        return Names(self.rows.take(rows))

    def with_names(self, rows: I64, names: Sequence[str]) -> Names:
        """The same names but for those of `rows`."""
        if not names:
            return self
        fresh = Names.of(names).rows
        start, length = self.rows.start.copy(), self.rows.length.copy()
        start[rows], length[rows] = fresh.start + len(self.rows.octets), fresh.length
        return Names(ByteRows(np.concatenate([self.rows.octets, fresh.octets]), start, length))

    def are_given(self) -> Flags:
        """For each whether it has any letters."""
        given: Flags = self.rows.length > 0
        return given

    def start_with(self, prefix: bytes) -> Flags:
        """For each whether it starts with `prefix`."""
        if self._first_word is None:
            self._first_word = words_at(self.rows.octets, self.rows.start)
        found: Flags = self.rows.length >= len(prefix)
        found &= (self._first_word & _mask(prefix[:8])) == _number(prefix[:8])
        for at in range(8, len(prefix), 8):
            rows, part = np.flatnonzero(found), prefix[at : at + 8]
            found[rows] = words_at(self.rows.octets, self.rows.start[rows] + at) & _mask(part) == _number(part)
        return found

    def equal(self, name: bytes) -> Flags:
        """For each whether it is `name`."""
        same: Flags = self.start_with(name) & (self.rows.length == len(name))
        return same

    def containing(self, part: bytes) -> I64:
        """Rows of the names that contain `part`."""
        low, high = self._extent()
        if len(self.rows) * _SPARSE < high - low:
            octets, places_of, sizes = self.rows.octets.data, self.rows.start.tolist(), self.rows.length.tolist()
            found = [part in bytes(octets[at : at + size]) for at, size in zip(places_of, sizes, strict=True)]
            return np.flatnonzero(np.array(found, dtype=np.bool_))
        first, whole = self._stretch()
        hits, at = [], whole.find(part)
        while at >= 0:
            hits.append(first + at)
            at = whole.find(part, at + 1)
        places = np.array(hits, dtype=np.int64)
        start, end = self.rows.start, self.rows.start + self.rows.length - len(part)
        rows: I64 = np.flatnonzero(np.searchsorted(places, start) < np.searchsorted(places, end, side="right"))
        return rows

    def rows_of(self, wanted: Sequence[str]) -> I64:
        """The last row that has each wanted name, or -1."""
        if len(wanted) <= _FEW:
            found = [np.flatnonzero(self.equal(name.encode("utf-8", "surrogateescape"))) for name in wanted]
            return np.array([rows[-1] if len(rows) else -1 for rows in found], dtype=np.int64)
        here, there = intern(self.rows, Names.of(wanted).rows)
        last = np.full(len(here) + len(there), -1, dtype=np.int64)
        last[here] = np.arange(len(here))
        return last[there]

    def _stretch(self) -> tuple[int, bytes]:
        """The part of the buffer that has all names, and where it starts."""
        first, end = self._extent()
        return first, self.rows.octets[first:end].tobytes()

    def _extent(self) -> tuple[int, int]:
        """Where that part starts and ends."""
        start, length = self.rows.start, self.rows.length
        if not length.all():
            start, length = start[length > 0], length[length > 0]
        return (int(start.min()), int((start + length).max())) if len(start) else (0, 0)

    def without_versions(self, of_all: bool) -> Names:
        """Each name without the version that a linker or assembler wrote behind it: a default one, `name@@VERSION`;
        `of_all`: one that is asked for by name, `name@VERSION`, too (ld(1), "VERSION")."""
        first, end = self._extent()
        places = first + np.flatnonzero(self.rows.octets[first:end] == _AT)
        if len(places) == 0:
            return self
        start, length = self.rows.start, self.rows.length
        at = places[np.minimum(np.searchsorted(places, start), len(places) - 1)]
        cut = (at >= start) & (at < start + length)
        if not of_all:
            cut &= (at + 1 < start + length) & (self.rows.octets[np.minimum(at + 1, len(self.rows.octets) - 1)] == _AT)
        return Names(ByteRows(self.rows.octets, start, np.where(cut, at - start, length)))

    def with_text(self, texts: Mapping[int, str]) -> Names:
        """The names, some of them others."""
        row = np.arange(len(self))
        row[list(texts)] = len(self) + np.arange(len(texts))
        return Names(self.rows.followed_by(Names.of(texts.values()).rows)).take(row) if texts else self

    def dotted_numbers(self) -> tuple[I64, I64, Flags]:
        """For each name in which a dot stands before a digit, or before what may be one outside of ASCII: its row, the
        place of the last such dot in the buffer, and whether there is just one."""
        start, whole = self._stretch()
        octets = np.frombuffer(whole, np.uint8)
        dots = np.flatnonzero(octets[:-1] == _DOT)
        following = octets[dots + 1]
        dots = start + dots[((following >= 0x30) & (following <= 0x39)) | (following >= 0x80)]
        first = np.searchsorted(dots, self.rows.start)
        last = np.searchsorted(dots, self.rows.start + self.rows.length)
        rows = np.flatnonzero(last > first)
        return rows, dots[last[rows] - 1], (last - first)[rows] == 1


def _mask(part: bytes) -> np.uint64:
    return np.uint64((1 << 8 * len(part)) - 1)


def _number(part: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(part, "little"))
