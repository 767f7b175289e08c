"""Reading many pieces of the inferior's memory in one round trip.

A question to the debugger costs a fixed time, however small, and every range in it some more: neighbours are joined
into one range. A joined range that cannot be read whole is asked for again in its parts.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ipbp.graph.image import MemoryReader
from ipbp.graph.model import I64

_GAP = 512
"""Bytes that are read for nothing rather than as a range of their own."""


def read_pieces(read: MemoryReader, start: I64, size: I64) -> list[bytes | None]:
    """The bytes of each piece, in order; None for one that cannot be read whole. Pieces may overlap."""
    pieces: list[bytes | None] = [b""] * len(start)
    order = np.flatnonzero(size > 0)
    order = order[np.argsort(start[order], kind="stable")]
    if len(order) == 0:
        return pieces
    reach = np.maximum.accumulate(start[order] + size[order])
    first = np.flatnonzero(np.append(True, start[order][1:] > reach[:-1] + _GAP))
    bounds = [*first.tolist(), len(order)]
    runs = [(int(start[order[a]]), int(reach[b - 1])) for a, b in pairwise(bounds)]
    found = read([(low, high - low) for low, high in runs])
    again: list[int] = []
    for (low, _high), content, a, b in zip(runs, found, bounds[:-1], bounds[1:], strict=True):
        members = order[a:b].tolist()
        if content is None:
            again += members
            continue
        for row in members:
            at = int(start[row]) - low
            pieces[row] = content[at : at + int(size[row])]
    if again:
        for row, content in zip(again, read([(int(start[row]), int(size[row])) for row in again]), strict=True):
            pieces[row] = content
    return pieces


def read_words(read: MemoryReader, address: I64) -> I64:
    """The 8-byte number at each address, 0 where memory cannot be read."""
    places, back = np.unique(address, return_inverse=True)
    contents = read_pieces(read, places, np.full(len(places), 8))
    words = np.array([int.from_bytes(content or b"", "little", signed=True) for content in contents], dtype=np.int64)
    return words[back] if len(words) else words
