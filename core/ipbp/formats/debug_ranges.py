"""Ranges of code that is not in the patch, made empty in `.debug_rnglists`.

The address of code that is not carried becomes 0, which debuggers skip in line tables and functions. A compile
unit's list of ranges is another matter: lldb (19, 22) loses the whole unit when one of its ranges starts below the
first section with code. So the length of such a range becomes 0, too, as do both ends of one that counts from such an
address (clang's static initialisers share a section): an empty range has no effect (DWARF 5, 2.17.3).
The bytes keep their number: a ULEB128 may have more of them than it needs.
"""

from __future__ import annotations

import re
from collections.abc import Set

# DWARF 5, 7.25, range list entries: the kinds and order of their operands. A list has tens of thousands of entries, so
# that an expression reads them: those that say where code is one by one, all others in one go. After a base address
# come the pairs of offsets that count from it.
_ULEB = rb"[\x80-\xff]*[\x00-\x7f]"
_ENTRIES = re.compile(
    rb"\x07(?P<field>.{8})(?P<length>%b)|\x03(?P<index>%b)(?P<count>%b)"
    rb"|\x05(?P<base>.{8})(?P<offsets>(?:\x04%b%b)*)|\x01(?P<base_index>%b)(?P<index_offsets>(?:\x04%b%b)*)"
    rb"|(?:\x00|[\x02\x04]%b%b|\x06.{16})+" % ((_ULEB,) * 10),
    re.DOTALL,
)
_PAIR = re.compile(rb"\x04(?P<both>%b%b)" % (_ULEB, _ULEB))
_HEADER_SIZE = 12  # unit_length, version, address_size, segment_selector_size, offset_entry_count


def empty_dead_ranges(content: bytes, dead_fields: Set[int], dead_indices: Set[int]) -> bytes:
    """`.debug_rnglists` of one object with the ranges of dead code emptied.

    `dead_fields`: offsets of address fields of dead code; `dead_indices`: entries of the object's `.debug_addr`.
    A list in the 64-bit format, or one that is not understood, stays as it is.
    """
    written = bytearray(content)
    start = 0
    while start + _HEADER_SIZE <= len(content):
        end = start + 4 + int.from_bytes(content[start : start + 4], "little")
        if end > len(content) or int.from_bytes(content[start + 4 : start + 6], "little") != 5:
            break
        offsets = int.from_bytes(content[start + 8 : start + 12], "little")
        read = start + _HEADER_SIZE + 4 * offsets
        for entry in _ENTRIES.finditer(content, read, end):
            if entry.start() != read:
                break
            read = entry.end()
            if entry.lastgroup == "length" and entry.start("field") in dead_fields:
                _empty(written, *entry.span("length"))
            elif entry.lastgroup == "count" and _uleb(entry["index"]) in dead_indices:
                _empty(written, *entry.span("count"))
            elif entry.lastgroup == "offsets" and entry.start("base") in dead_fields:
                _empty_pairs(written, content, *entry.span("offsets"))
            elif entry.lastgroup == "index_offsets" and _uleb(entry["base_index"]) in dead_indices:
                _empty_pairs(written, content, *entry.span("index_offsets"))
        start = end
    return bytes(written)


def _empty_pairs(written: bytearray, content: bytes, start: int, end: int) -> None:
    for pair in _PAIR.finditer(content, start, end):
        _empty(written, *pair.span("both"))


def _empty(written: bytearray, start: int, end: int) -> None:
    """A number of as many bytes that is 0."""
    for at in range(start, end):
        written[at] &= 0x80


def _uleb(octets: bytes) -> int:
    return sum((octet & 0x7F) << (7 * at) for at, octet in enumerate(octets))
