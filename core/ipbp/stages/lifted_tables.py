"""The exception tables of a lifted image's functions, and the unwind rows that lead to them.

The rows are written anew, as short as they may be: they only say which table belongs to which function.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipbp.graph.edges import EdgeKind
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import BlockKind, SideEdges, SideSection
from ipbp.stages.image_tables import exception_tables
from ipbp.stages.lifted_content import Outline, section_of
from ipbp.stages.unwind import UNWIND, unwind_links

_COMMON = bytes([4, 0, 0, 0, 0, 0, 0, 0])  # a record of its length and a zero, which makes it one that others share
_ROW = 16  # length, distance to that record, the function, its table: four bytes each


def add_tables(outline: Outline, image: LoadedImage) -> tuple[SideSection, ...]:
    """A block for each exception table of a function whose counterpart has one, and what tells whose it is."""
    new, maker = outline.new, outline.maker
    links = unwind_links(new)
    home = new.symbols.block[links.symbol]
    own = links.is_own & (home >= 0)
    guide = dict(zip(links.block[own].tolist(), home[own].tolist(), strict=True))
    functions = {
        maker.address[block]: block
        for block, counterpart in outline.guide_of.items()
        if counterpart in guide and maker.kinds[block] == BlockKind.CODE
    }
    rows = []
    for function, place in exception_tables(image, functions).items():
        table = guide[outline.guide_of[functions[function]]]
        section, alignment = section_of(new, table)
        block = maker.add_block(place, int(new.blocks.size[table]), BlockKind.RODATA, section, alignment, ())
        outline.guide_of[block] = table
        rows.append((maker.anchors[functions[function]], maker.anchors[block]))
    return (_section(rows),) if rows else ()


def _section(rows: Sequence[tuple[int, int]]) -> SideSection:
    content = bytearray(_COMMON)
    for _row in rows:
        distance = len(content) + 4
        content += b"".join(number.to_bytes(4, "little") for number in (_ROW - 4, distance, 0, 0))
    start = np.arange(len(rows), dtype=np.int64) * _ROW + len(_COMMON)
    edges = SideEdges(
        memoryview(bytes(content)),
        np.column_stack([start + 8, start + 12]).ravel(),
        np.full(2 * len(rows), EdgeKind.PCREL32, dtype=np.uint8),
        np.array(rows, dtype=np.int32).ravel(),
        np.zeros(2 * len(rows), dtype=np.int64),
    )
    return SideSection(UNWIND, 8, 0, 0, lambda: edges)
