"""Static variables of functions, which gcc numbers: debug information says of which function each of them is.

Who refers to such a variable does not always tell it from another of its name: where an edit changes what is inlined,
one function may take another's place in a third.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ipbp.graph.image import LoadedImage
from ipbp.graph.layouts import Definition, UnitTypes
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.layouts import sections_of_image
from ipbp.pipeline.parts import numbered_state
from ipbp.stages.select import OldSide

_INFO = ".debug_info"


def pair_by_function(
    old: OldSide, new: LinkGraph, sides: tuple[UnitTypes, UnitTypes] | None, image: LoadedImage | None
) -> dict[int, int]:
    """New symbol -> old symbol, for numbered variables whose function and name both sides say. `sides`: what describes
    them; `image`: where the old side comes from when no object gave it."""
    state, own = (numbered_state(graph) if sides is not None else [] for graph in (old.graph, new))
    if sides is None or not state or not own:
        return {}
    before, after = (_alone(types.definitions) for types in sides)
    known = _by_field(old.graph, state, before) if image is None else _by_address(old, state, image, before)
    found = {row.name: symbol for row, symbol in zip(before, known, strict=True) if symbol >= 0}
    pairs = zip(after, _by_field(new, own, after), strict=True)
    return {symbol: found[row.name] for row, symbol in pairs if symbol >= 0 and row.name in found}


def _alone(rows: Sequence[Definition]) -> list[Definition]:
    """The variables that are the only ones of their function and name."""
    count = Counter(row.name for row in rows)
    return [row for row in rows if count[row.name] == 1 and row.field >= 0 and row.is_plain]


def _by_field(graph: LinkGraph, state: Sequence[int], rows: Sequence[Definition]) -> list[int]:
    """The symbol among `state` of each by the fixup of its address, or -1."""
    symbols, wanted = graph.symbols, np.array([row.field for row in rows], dtype=np.int64)
    numbered = {(int(symbols.block[row]), int(symbols.offset[row])): row for row in state}
    found, start = np.full(len(rows), -1, dtype=np.int64), 0
    for section in graph.side:
        if section.name == _INFO:
            _, at, fixup = np.intersect1d(wanted, section.offset + start, return_indices=True)
            target = section.target[fixup]
            places = zip(symbols.block[target], symbols.offset[target] + section.addend[fixup], strict=True)
            found[at] = [numbered.get((int(home), int(offset)), -1) for home, offset in places]
            start += len(section.content)
    return found.tolist()


def _by_address(old: OldSide, state: Sequence[int], image: LoadedImage, rows: Sequence[Definition]) -> list[int]:
    """The same by the address in the image's debug information."""
    content = sections_of_image(image, (_INFO,)).get(_INFO, b"")
    numbered = {int(old.address[row]): row for row in state}
    fields = (int.from_bytes(content[row.field : row.field + 8], "little") for row in rows)
    return [numbered.get(link + image.bias, -1) for link in fields]
