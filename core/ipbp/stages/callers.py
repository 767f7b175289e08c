"""Who calls a function directly, by the code of the image.

A direct call is an opcode and a distance, and four bytes that lead exactly to an entry by chance are one in a
billion: so the code is searched, not decoded.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ipbp.graph.image import LoadedImage
from ipbp.graph.model import I64, BlockKind, SymbolType


def direct_calls(image: LoadedImage, entries: Collection[int]) -> tuple[I64, I64]:
    """Load addresses of the calls and jumps of the image's file that lead to one of these entries, and where each
    leads. Those of patches are not among them."""
    wanted = np.array(sorted(entries), dtype=np.int64)
    places, targets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part in image.parts:
        content = image.original(part.start, part.end - part.start) if part.kind == BlockKind.CODE else None
        if content is None or len(content) < 5:
            continue
        octets = np.frombuffer(content, np.uint8)
        place = np.flatnonzero((octets[:-4] & 0xFE) == 0xE8)  # call and jmp (Intel SDM vol. 2)
        distance = np.zeros(len(place), np.uint32)
        for byte in range(4):
            distance |= octets[place + 1 + byte].astype(np.uint32) << np.uint32(8 * byte)
        target = part.start + place + 5 + distance.view(np.int32)
        hits = np.isin(target, wanted)
        places.append(part.start + place[hits])
        targets.append(target[hits])
    return np.concatenate(places), np.concatenate(targets)


def functions_at(image: LoadedImage, places: I64) -> list[str]:
    """The function that each place is in, "" where no symbol tells."""
    table = image.symbols
    rows = np.flatnonzero((table.type == SymbolType.FUNCTION) & (table.size > 0))
    if len(rows) == 0:
        return [""] * len(places)
    before = np.maximum(np.searchsorted(table.address[rows], places, side="right") - 1, 0)
    row = rows[before]
    inside = (places >= table.address[row]) & (places < table.address[row] + table.size[row])
    return [table.name[r] if known else "" for r, known in zip(row.tolist(), inside.tolist(), strict=True)]
