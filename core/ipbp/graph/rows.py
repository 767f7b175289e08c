"""Many strings of bytes at once: names, constants, lists of fixups. Nothing here touches them one by one.

A row is a stretch of a buffer. Rows are read as columns of 64-bit words, hashed, and given numbers that are equal
exactly where the bytes are: the hash only finds who may be equal, the words decide. An object can be written so that
hashes collide; then a plain dictionary does the work, slower and just as right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ipbp.graph.columns import I32, I64, U8, U64, Flags

_WORD = 8
_PART = 1 << 13
_MANY = 64  # rows, for which a step for each word is worth it
_FULL = 0xFFFFFFFFFFFFFFFF
_SHORT_TAIL = 16  # words
_LOW_BYTES: U64 = np.array([(1 << 8 * count) - 1 for count in range(9)], dtype=np.uint64)
# Odd numbers without a pattern (the constants of splitmix64 and of xxHash's 64-bit rounds).
_MIX = tuple(np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xC2B2AE3D27D4EB4F))


def is_one_of(column: npt.NDArray[Any], values: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Which rows have one of a few values. `np.isin` takes ten times as long for a column of some hundred rows."""
    if column.dtype == np.uint8:
        chosen: npt.NDArray[np.bool_] = _is_chosen(tuple(values))[column]
        return chosen
    found = np.zeros(column.shape, dtype=np.bool_)
    for value in values:
        found |= column == value
    return found


@lru_cache(maxsize=256)
def _is_chosen(values: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """For each number of a byte whether it is among these."""
    chosen = np.zeros(256, dtype=np.bool_)
    chosen[[value for value in values if 0 <= value < 256]] = True
    return chosen


@dataclass(frozen=True, slots=True)
class ByteRows:
    """Row r is `octets[start[r] : start[r] + length[r]]`. Rows may overlap."""

    octets: U8
    start: I64
    length: I64

    def __len__(self) -> int:
        return len(self.start)

    def of(self, row: int) -> bytes:
        start = int(self.start[row])
        return self.octets[start : start + int(self.length[row])].tobytes()

    def take(self, rows: I64 | I32 | Flags) -> ByteRows:
        return ByteRows(self.octets, self.start[rows], self.length[rows])

    def compact(self) -> ByteRows:
        """The same rows with the part of the buffer that they are in, and no more of it."""
        filled = np.flatnonzero(self.length)
        if len(filled) == 0:
            return ByteRows(self.octets[:0], np.zeros_like(self.start), self.length)
        first, last = int(self.start[filled].min()), int((self.start + self.length)[filled].max())
        return ByteRows(self.octets[first:last], np.where(self.length > 0, self.start - first, 0), self.length)

    def followed_by(self, other: ByteRows) -> ByteRows:
        """These rows and then the others, in a buffer of their own."""
        one, two = self.compact(), other.compact()
        return ByteRows(
            np.concatenate([one.octets, two.octets]),
            np.concatenate([one.start, two.start + len(one.octets)]),
            np.concatenate([one.length, two.length]),
        )

    def are_digits(self, start: I64, end: I64) -> Flags:
        """For each stretch of the buffer whether it is one to eight decimal digits."""
        size = end - start
        result: Flags = (size >= 1) & (size <= _WORD)
        for at in range(_WORD):
            octet = self.octets[np.minimum(start + at, len(self.octets) - 1)]
            result &= ((octet >= 0x30) & (octet <= 0x39)) | (size <= at)
        return result

    def without_end_zeros(self) -> ByteRows:
        """The same rows, ending with their last byte that is not zero."""
        length = self.length.copy()
        waiting = np.flatnonzero(length >= _WORD)
        for _ in range(_SHORT_TAIL):
            waiting = waiting[words_at(self.octets, self.start[waiting] + length[waiting] - _WORD) == 0]
            length[waiting] -= _WORD
            waiting = waiting[length[waiting] >= _WORD]
        for row in waiting.tolist():
            length[row] = len(self.of(row).rstrip(b"\0"))
        # Now every row is empty, or one of its last eight bytes is not zero.
        size = np.minimum(length, _WORD)
        last = words_at(self.octets, self.start + length - size) & _LOW_BYTES[size]
        used = (last[:, None] > _LOW_BYTES[:_WORD]).sum(axis=1)
        return ByteRows(self.octets, self.start, length - size + used)


def byte_rows(strings: Sequence[bytes]) -> ByteRows:
    """Rows with copies of these strings."""
    length = np.array([len(string) for string in strings], dtype=np.int64)
    return ByteRows(np.frombuffer(b"".join(strings), np.uint8), np.cumsum(length) - length, length)


def ragged(count: I64) -> tuple[I64, I64]:
    """For rows of `count` things each: the row of every thing, and its number within that row."""
    owner = np.repeat(np.arange(len(count)), count)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)


def distinct(values: I64) -> I64:
    """The different ones among the values, ascending. (np.unique hashes, and does that badly for numbers like keys,
    whose low bits are alike.)"""
    ordered = np.sort(values)
    keep = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=keep[1:])
    return ordered[keep]


def intern(*tables: ByteRows) -> tuple[I64, ...]:
    """A number for every row of every table, equal where the bytes are equal and only there."""
    words, place = zip(*(_words(table) for table in tables), strict=True)
    length = np.concatenate([table.length for table in tables])
    word, within = np.concatenate(words), np.concatenate(place)
    first = np.cumsum((length + _WORD - 1) // _WORD) - (length + _WORD - 1) // _WORD
    number = representatives(_hashes(word, within, first, length))
    twin = np.flatnonzero(number != np.arange(len(number)))
    if not _are_equal(word, first, length, twin, number[twin]):
        number = _numbered_one_by_one(tables)
    return tuple(np.split(number, np.cumsum([len(table) for table in tables])[:-1]))


def hashes(rows: ByteRows) -> U64:
    """A hash of the bytes of each row. Files keep these: another function needs another format there."""
    result = np.empty(len(rows), dtype=np.uint64)
    # By parts whose words stay in the processor's cache.
    for at in range(0, len(rows), _PART):
        part = ByteRows(rows.octets, rows.start[at : at + _PART], rows.length[at : at + _PART])
        result[at : at + _PART] = _part_hashes(part)
    return result


def _part_hashes(rows: ByteRows) -> U64:
    """The first word of all rows, then the second of those that have one, as long as these are many."""
    total = rows.length.astype(np.uint64) * _MIX[0]
    row = np.flatnonzero(rows.length)
    start, left, number = rows.start[row], rows.length[row], 0
    while len(row) >= _MANY:
        word = words_at(rows.octets, start)
        last = np.flatnonzero(left < _WORD)
        word[last] &= _LOW_BYTES[left[last]]
        total[row] += _scrambled(word, np.uint64(number * int(_MIX[3]) & _FULL))
        number += 1
        if int(left.min()) <= _WORD:
            more = np.flatnonzero(left > _WORD)
            row, start, left = row[more], start[more], left[more]
        start, left = start + _WORD, left - _WORD
    if len(row):
        word, within = _words(ByteRows(rows.octets, start, left))
        count = (left + _WORD - 1) // _WORD
        scrambled = _scrambled(word, (within + number).astype(np.uint64) * _MIX[3])
        total[row] += np.add.reduceat(scrambled, np.cumsum(count) - count)
    return _finished(total)


@lru_cache(1024)  # one name is looked for in one image after the other
def hash_of(content: bytes) -> int:
    """The same hash of one row."""
    one, two, three, four = (int(number) for number in _MIX)
    total = len(content) * one
    for at in range(0, len(content), _WORD):
        word = int.from_bytes(content[at : at + _WORD], "little") ^ (at // _WORD * four & _FULL)
        word = word * two & _FULL
        word = (word ^ word >> 29) * three & _FULL
        total += word ^ word >> 32
    total &= _FULL
    total = (total ^ total >> 31) * two & _FULL
    return total ^ total >> 30


def intern_numbers(rows: npt.NDArray[np.int64]) -> I64:
    """A number for every row of a matrix, equal where the rows are."""
    flat = np.ascontiguousarray(rows)
    width = flat.shape[1] * flat.itemsize
    start = np.arange(len(flat)) * width
    (number,) = intern(ByteRows(flat.reshape(-1).view(np.uint8), start, np.full(len(flat), width, dtype=np.int64)))
    return number


def unequal(one: ByteRows, other: ByteRows) -> Flags:
    """For each pair of rows, which are of one length, whether they differ.

    Where many rows keep their distance to each other, as in two builds of one source, stretches are compared at once.
    """
    filled = np.flatnonzero(one.length)
    start, end = one.start[filled], one.start[filled] + one.length[filled]
    shift = other.start[filled] - start
    breaks = np.flatnonzero((shift[1:] != shift[:-1]) | (start[1:] < end[:-1])) + 1
    edges = [0, *breaks.tolist(), len(filled)]
    if len(edges) > 16 + len(filled) // 16:
        return _unequal_words(one, other)
    result = np.zeros(len(one), dtype=np.bool_)
    for first, last in pairwise(edges) if len(filled) else ():
        low, high, distance = int(start[first]), int(end[last - 1]), int(shift[first])
        wrong = low + np.flatnonzero(one.octets[low:high] != other.octets[low + distance : high + distance])
        row = np.searchsorted(start[first:last], wrong, side="right") - 1 + first
        result[filled[row[wrong < end[row]]]] = True
    return result


def _unequal_words(one: ByteRows, other: ByteRows) -> Flags:
    (left, _), (right, _) = _words(one), _words(other)
    owner, _ = ragged((one.length + _WORD - 1) // _WORD)
    result = np.zeros(len(one), dtype=np.bool_)
    result[owner[left != right]] = True
    return result


def representatives(values: U64) -> I64:
    """For each value the row of one that is equal to it, the same row for all of these.

    A table of slots, each filled by the last row that wants it; who finds another value there tries another slot.
    """
    result = np.full(len(values), -1, dtype=np.int64)
    bits = max(8, int(2 * max(len(values), 1) - 1).bit_length())
    table = np.zeros(1 << bits, dtype=np.int64)
    waiting, factor = np.arange(len(values)), 1
    while len(waiting):
        # Another odd factor in each round makes another choice of slots.
        factor = factor * int(_MIX[0]) & _FULL
        value = values[waiting]
        slot = (value * np.uint64(factor)) >> np.uint64(64 - bits)
        table[slot] = waiting
        owner = table[slot]
        found = values[owner] == value
        result[waiting[found]] = owner[found]
        waiting = waiting[~found]
    return result


def _words(rows: ByteRows) -> tuple[U64, I64]:
    """The bytes of all rows as words, the last word of each filled with zeros; and each word's number in its row."""
    owner, within = ragged((rows.length + _WORD - 1) // _WORD)
    at = rows.start[owner] + within * _WORD
    left = np.minimum(rows.length[owner] - within * _WORD, _WORD)
    return words_at(rows.octets, at) & _LOW_BYTES[left], within


def words_at(octets: U8, at: I64) -> U64:
    """The eight bytes at each place as a little-endian word; what lies behind the end of the buffer is zero."""
    if len(octets) < _WORD:
        octets = np.concatenate([octets, np.zeros(_WORD, dtype=np.uint8)])
    last = len(octets) - _WORD
    view: U64 = np.ndarray((last + 1,), dtype="<u8", buffer=octets, strides=(1,))
    beyond = at > last
    if not beyond.any():
        return view[at]
    missing = np.where(beyond, at - last, 0)
    return view[at - missing] >> (missing.astype(np.uint64) * np.uint64(8))


def _hashes(word: U64, within: I64, first: I64, length: I64) -> U64:
    # A sum over the words, each scrambled with its place in the row, so that no loop over places is needed.
    scrambled = _scrambled(word, within.astype(np.uint64) * _MIX[3])
    total = length.astype(np.uint64) * _MIX[0]
    filled = np.flatnonzero(length)
    if len(filled):
        total[filled] += np.add.reduceat(scrambled, first[filled])
    return _finished(total)


def _scrambled(word: U64, place: U64 | np.uint64) -> U64:
    scrambled = (word ^ place) * _MIX[1]
    scrambled ^= scrambled >> np.uint64(29)
    scrambled *= _MIX[2]
    scrambled ^= scrambled >> np.uint64(32)
    return scrambled


def _finished(total: U64) -> U64:
    total ^= total >> np.uint64(31)
    total *= _MIX[1]
    return total ^ (total >> np.uint64(30))


def _are_equal(word: U64, first: I64, length: I64, rows: I64, others: I64) -> bool:
    if (length[rows] != length[others]).any():
        return False
    owner, within = ragged((length[rows] + _WORD - 1) // _WORD)
    return bool((word[first[rows][owner] + within] == word[first[others][owner] + within]).all())


def _numbered_one_by_one(tables: Sequence[ByteRows]) -> I64:
    known: dict[bytes, int] = {}
    numbers = [known.setdefault(table.of(row), len(known)) for table in tables for row in range(len(table))]
    return np.array(numbers, dtype=np.int64)
