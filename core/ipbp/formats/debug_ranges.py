"""Ranges of code that is not in the patch, made empty in `.debug_rnglists`.

The address of code that is not carried becomes 0, which debuggers skip in line tables and functions. A compile
unit's list of ranges is another matter: lldb (19, 22) loses the whole unit when one of its ranges starts below the
first section with code. So the length of such a range becomes 0, too, as do both ends of one that counts from such an
address (clang's static initialisers share a section): an empty range has no effect (DWARF 5, 2.17.3).
The bytes keep their number: a ULEB128 may have more of them than it needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

import numpy as np

from ipbp.graph.columns import I64, U8
from ipbp.graph.rows import ragged

# DWARF 5, 7.25, range list entries: the kinds and order of their operands. Those with an address are found by its
# fixup; those that name an entry of `.debug_addr` an expression reads, with all others in one go.
_OFFSET_PAIR, _BASE_ADDRESS, _START_LENGTH = 0x04, 0x05, 0x07
_ULEB = rb"[\x80-\xff]*[\x00-\x7f]"
_ENTRIES = re.compile(
    rb"\x03(?P<index>%b)(?P<count>%b)|\x01(?P<base_index>%b)(?P<offsets>)"
    rb"|(?:\x00|[\x02\x04]%b%b|\x05.{8}|\x06.{16}|\x07.{8}%b)+" % ((_ULEB,) * 6),
    re.DOTALL,
)
_HEADER_SIZE = 12  # unit_length, version, address_size, segment_selector_size, offset_entry_count
_ADDRESS_SIZE = 8


def empty_dead_ranges(content: bytes, dead_fields: Set[int], dead_indices: Set[int]) -> bytes:
    """`.debug_rnglists` of one object with the ranges of dead code emptied.

    `dead_fields`: offsets of address fields of dead code; `dead_indices`: entries of the object's `.debug_addr`.
    A list in the 64-bit format, or one that is not understood, stays as it is.
    """
    written = np.frombuffer(content, np.uint8).copy()
    numbers = _Numbers(written.copy())
    fields = np.array(sorted(dead_fields), dtype=np.int64)
    for start, end in _lists(content):
        here = fields[(fields > start) & (fields + _ADDRESS_SIZE < end)]
        kind = written[here - 1]
        lengths = [here[kind == _START_LENGTH] + _ADDRESS_SIZE]
        bases = [here[kind == _BASE_ADDRESS] + _ADDRESS_SIZE]
        if dead_indices:
            for is_base, place in _of_indices(content, start, end, dead_indices):
                (bases if is_base else lengths).append(np.array([place], dtype=np.int64))
        numbers.clear(written, np.concatenate(lengths), end)
        at = np.concatenate(bases)
        while len(at := at[at < end]) and len(at := at[numbers.octets[at] == _OFFSET_PAIR]):
            at = numbers.clear(written, numbers.clear(written, at + 1, end), end)
    return written.tobytes()


class _Numbers:
    """The ULEB128 numbers of a section. `last`: places of bytes that end one."""

    def __init__(self, octets: U8) -> None:
        self.octets = octets
        self.last = np.flatnonzero(octets < 0x80)

    def clear(self, written: U8, at: I64, end: int) -> I64:
        """Make those that begin at these places 0, each of as many bytes; where they end. One that does not end before
        `end` stays, and is left out."""
        row = np.searchsorted(self.last, at)
        at, row = at[row < len(self.last)], row[row < len(self.last)]
        behind = self.last[row] + 1
        at, behind = at[behind <= end], behind[behind <= end]
        owner, within = ragged(behind - at)
        written[at[owner] + within] &= 0x80
        return behind


def _lists(content: bytes) -> Iterator[tuple[int, int]]:
    """Where the lists of each unit begin and end."""
    start = 0
    while start + _HEADER_SIZE <= len(content):
        end = start + 4 + int.from_bytes(content[start : start + 4], "little")
        if end > len(content) or int.from_bytes(content[start + 4 : start + 6], "little") != 5:
            return
        yield start + _HEADER_SIZE + 4 * int.from_bytes(content[start + 8 : start + 12], "little"), end
        start = end


def _of_indices(content: bytes, start: int, end: int, dead: Set[int]) -> Iterator[tuple[bool, int]]:
    """Entries that name one of these: whether offsets follow or a length, and where."""
    for entry in _ENTRIES.finditer(content, start, end):
        if entry.start() != start:
            return
        start = entry.end()
        if entry.lastgroup == "count" and _uleb(entry["index"]) in dead:
            yield False, entry.start("count")
        elif entry.lastgroup == "offsets" and _uleb(entry["base_index"]) in dead:
            yield True, entry.end()


def _uleb(octets: bytes) -> int:
    return sum((octet & 0x7F) << (7 * at) for at, octet in enumerate(octets))
