"""Where a function of an object is in an image that has no name for it: where its bytes are.

A stripped program has lost its names, not its code. The longest run of bytes between two fixups is looked for in the
image's code; whoever asks must still compare the whole, and take a place only when it is the only one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipbp.arch.fields import WIDTH
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import BlockKind, LinkGraph

_BEFORE, _AFTER = 8, 4
"""Bytes around a fixup that a linker's relaxation may rewrite (psABI, "Optimize GOTPCRELX Relocations")."""
_SHORTEST = 8  # a shorter run is found everywhere


def code_of(image: LoadedImage) -> list[tuple[int, bytes]]:
    """Load address and content, as the file has it, of each part of the image's code."""
    parts = [part for part in image.parts if part.kind == BlockKind.CODE]
    return [(part.start, image.original(part.start, part.end - part.start) or b"") for part in parts]


def places_by_content(graph: LinkGraph, block: int, code: Sequence[tuple[int, bytes]]) -> list[int]:
    """Load addresses at which the longest part of this block that no linker touches stands in the `code_of` an image,
    as addresses of the block's start. Empty when that part is too short to tell anything."""
    start, needle = _longest_fixed_part(graph, block)
    if len(needle) < _SHORTEST:
        return []
    found = []
    for base, content in code:
        at = content.find(needle)
        while at >= 0:
            found.append(base + at - start)
            at = content.find(needle, at + 1)
    return found


def _longest_fixed_part(graph: LinkGraph, block: int) -> tuple[int, bytes]:
    content, rows = bytes(graph.content(block)), graph.edges_of(block)
    offset = graph.edges.offset[rows]
    starts = np.concatenate([[0], offset + WIDTH[graph.edges.kind[rows]] + _AFTER])
    ends = np.concatenate([offset - _BEFORE, [len(content)]])
    longest = int(np.argmax(ends - starts))
    start, end = int(starts[longest]), int(ends[longest])
    return start, content[start : max(start, end)]
