"""Ranges of code that is not in the patch, made empty in `.debug_rnglists`.

The address of code that is not carried becomes 0, which debuggers skip in line tables and functions. A compile
unit's list of ranges is another matter: lldb (19, 22) loses the whole unit when one of its ranges starts below the
first section with code. So the length of such a range becomes 0, too: an empty range has no effect (DWARF 5, 2.17.3).
The bytes keep their number: a ULEB128 may have more of them than it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

# DWARF 5, 7.25, range list entries: the kinds and order of their operands.
_INDEX, _NUMBER, _ADDRESS = "x", "u", "a"
_OPERANDS = {0: "", 1: "x", 2: "xx", 3: "xu", 4: "uu", 5: "a", 6: "aa", 7: "au"}
_STARTX_LENGTH, _START_LENGTH = 3, 7
_HEADER_SIZE = 12  # unit_length, version, address_size, segment_selector_size, offset_entry_count


@dataclass(frozen=True, slots=True)
class _Operand:
    place: int
    end: int
    value: int


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
        for kind, operands in _entries(content[:end], start + _HEADER_SIZE + 4 * offsets):
            first, length = operands[0], operands[-1]
            dead = (kind == _START_LENGTH and first.place in dead_fields) or (
                kind == _STARTX_LENGTH and first.value in dead_indices
            )
            if dead:
                for at in range(length.place, length.end):
                    written[at] &= 0x80
        start = end
    return bytes(written)


def _entries(content: bytes, at: int) -> Iterator[tuple[int, list[_Operand]]]:
    while at < len(content) and content[at] in _OPERANDS:
        kind, at, operands = content[at], at + 1, []
        for operand in _OPERANDS[kind]:
            read = _address(content, at) if operand == _ADDRESS else _uleb(content, at)
            operands.append(read)
            at = read.end
        if operands and at <= len(content):
            yield kind, operands


def _address(content: bytes, at: int) -> _Operand:
    return _Operand(at, at + 8, int.from_bytes(content[at : at + 8], "little"))


def _uleb(content: bytes, at: int) -> _Operand:
    value, end = 0, at
    while end < len(content):
        octet = content[end]
        value |= (octet & 0x7F) << (7 * (end - at))
        end += 1
        if octet < 0x80:
            break
    return _Operand(at, end, value)
