"""Numbers of variable length, as DWARF has them (DWARF 5, 7.6). Both give the number and the place behind it."""

from __future__ import annotations


def uleb(content: bytes, place: int) -> tuple[int, int]:
    octet = content[place]
    place += 1
    if octet < 0x80:
        return octet, place
    value, shift = octet & 0x7F, 7
    while octet >= 0x80:
        octet = content[place]
        value |= (octet & 0x7F) << shift
        shift += 7
        place += 1
    return value, place


def sleb(content: bytes, place: int) -> tuple[int, int]:
    start = place
    value, place = uleb(content, place)
    bits = 7 * (place - start)
    return value - (1 << bits) if content[place - 1] & 0x40 else value, place
