"""Good inputs made bad: a reproducible handful of changes, from single bits to whole pieces of other inputs."""

from __future__ import annotations

import random
from collections.abc import Sequence

_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
_WORDS = (
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"null",
    b"-1",
    b"1e999",
    b"\0",
    b"\xff",
    b"\n",
    b"$",
    b"'",
    b"=",
    b":",
    b"true",
)


def damaged(seeds: Sequence[bytes], number: int) -> bytes:
    """The `number`-th bad input."""
    chance = random.Random(number)
    content = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        _change(content, seeds, chance)
    return bytes(content)


def _change(content: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(content) + 1)
    length = min(chance.choice((1, 2, 4, 8, 64, 1024)), len(content) - at)
    kind = chance.randrange(7)
    if kind == 0 and at < len(content):
        content[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        size = chance.choice((1, 2, 4, 8))
        number = chance.choice(_NUMBERS) & (1 << 8 * size) - 1
        content[at : at + size] = number.to_bytes(size, "little")
    elif kind == 2:
        del content[at : at + length]
    elif kind == 3:
        content[at:at] = content[at : at + length]
    elif kind == 4:
        content[at:at] = chance.choice(_WORDS)
    elif kind == 5:
        other = chance.choice(seeds)
        start = chance.randrange(len(other) + 1)
        content[at : at + length] = other[start : start + length]
    else:
        del content[at:]
