"""Who calls a function directly, by the code of the image.

A direct call is an opcode and a distance, and four bytes that lead exactly to an entry by chance are one in a
billion: so the code is searched, not decoded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
from dataclasses import dataclass

import numpy as np

from ipbp.graph.columns import I32, I64, U8
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import BlockKind, SymbolType
from ipbp.graph.rows import ragged

_PIECE = 1 << 20
"""Bytes of code that are searched at a time: what is made of them fits into a processor's cache."""
_KEPT = 8
_kept: OrderedDict[Hashable, _Calls] = OrderedDict()


@dataclass(frozen=True, slots=True)
class _Calls:
    """All direct calls and jumps of an image's file that lead into its code: `target` ascending, `place`; both counted
    from the image's start, so that four bytes do for each as a rule."""

    target: I32 | I64
    place: I32 | I64


def direct_calls(image: LoadedImage, entries: Collection[int], version: Hashable = None) -> tuple[I64, I64]:
    """Load addresses of the calls and jumps of the image's file that lead to one of these entries, and where each
    leads. Those of patches are not among them. `version`: what tells the file from others of its name; the code of a
    file that has one is searched once."""
    key = None if version is None else (image.key, version)
    calls = _kept.get(key) if key is not None else None
    if calls is None:
        calls = _calls(image)
        if key is not None:
            _kept[key] = calls
    if key is not None:
        _kept.move_to_end(key)
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    wanted = np.array(sorted(entries), dtype=np.int64) - image.start
    first, last = (np.searchsorted(calls.target, wanted, side=side) for side in ("left", "right"))
    owner, within = ragged(last - first)
    rows = first[owner] + within
    return calls.place[rows].astype(np.int64) + image.start, calls.target[rows].astype(np.int64) + image.start


def _calls(image: LoadedImage) -> _Calls:
    kind = np.int32 if image.end - image.start < 1 << 31 else np.int64
    places, targets = [np.empty(0, kind)], [np.empty(0, kind)]
    code = [part for part in image.parts if part.kind == BlockKind.CODE]
    lowest, highest = min((part.start for part in code), default=0), max((part.end for part in code), default=0)
    for part in code:
        for start in range(part.start, part.end, _PIECE):
            # A piece reaches into the next one as far as an instruction that begins in it.
            content = image.original(start, min(_PIECE + 4, part.end - start))
            if content is None or len(content) < 5:
                continue
            place, target = _calls_in(np.frombuffer(content, np.uint8), start)
            leads = (target >= lowest) & (target < highest)
            places.append((place[leads] - image.start).astype(kind))
            targets.append((target[leads] - image.start).astype(kind))
    place, target = np.concatenate(places), np.concatenate(targets)
    order = np.argsort(target, kind="stable")
    return _Calls(target[order], place[order])


def _calls_in(octets: U8, start: int) -> tuple[I64, I64]:
    place = np.flatnonzero((octets[:-4] & 0xFE) == 0xE8)  # call and jmp (Intel SDM vol. 2)
    distance = np.zeros(len(place), np.uint32)
    for byte in range(4):
        distance |= octets[place + 1 + byte].astype(np.uint32) << np.uint32(8 * byte)
    return start + place, start + place + 5 + distance.view(np.int32)


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
