"""The base of the pointer table, `_GLOBAL_OFFSET_TABLE_`, from which the larger code models count.

Code of the medium and large models computes the base once (GOTPC) and reaches everything by 64-bit distances from it
(GOTOFF, GOT, PLTOFF; psABI section 3.5). In a patch the base is the one that the program has: a distance from it may
be stored in a table or a variable that lives on, and new code adds it to the base that it computes. A program without
such a table has no such numbers either, so the patch then makes a base of its own, the first cell of its table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipbp.arch.fields import GOT_RELATIVE
from ipbp.graph.edges import EdgeKind
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import I64, UNDEFINED
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.placer import Placer
from ipbp.stages.targets import CarriedEdges

GOT_NAME = "_GLOBAL_OFFSET_TABLE_"
IMAGE_NAME = "__ImageBase"  # what fields of COFF count from: where the image is loaded
BASE_KINDS = (EdgeKind.GOT_BASE_PCREL32, EdgeKind.GOT_BASE_PCREL64)
"""Kinds that compute the base; what symbol they name makes no difference."""
_CELL_SIZE = 8


def image_base(image: LoadedImage) -> int:
    """Load address of the image's _GLOBAL_OFFSET_TABLE_ (of a PE image that of the image), or UNBOUND. Where no symbol
    says it: linkers for x86-64 let the table begin with the cells of the PLT."""
    rows = image.symbols.by_name.get(GOT_NAME, ()) or image.symbols.by_name.get(IMAGE_NAME, ())
    if rows:
        return int(image.symbols.address[rows[0]])
    starts = {name: start for name, start, _end in image.sections}
    return starts.get(".got.plt", starts.get(".got", UNBOUND))


def place_bases(units: Sequence[Unit], edges: Sequence[CarriedEdges], placer: Placer) -> list[int]:
    """For each unit the base that its fields count from, UNBOUND where none of them does."""
    needed = [_needs_base(unit, rows) for unit, rows in zip(units, edges, strict=True)]
    own, pairs = UNBOUND, zip(units, edges, needed, strict=True)
    if any(need and unit.got_base == UNBOUND and not counts_from_image(rows) for unit, rows, need in pairs):
        own = placer.put(".got", _CELL_SIZE, _CELL_SIZE)
    bases = [own if unit.got_base == UNBOUND else unit.got_base for unit in units]
    return [base if need else UNBOUND for base, need in zip(bases, needed, strict=True)]


def counts_from_image(edges: CarriedEdges) -> bool:
    """Whether fields count from where the image is loaded, for which nothing else can stand."""
    return bool((edges.kind == EdgeKind.IMAGE32).any())


def with_base(unit: Unit, meaning: I64, base: int) -> I64:
    """`stages.targets.meanings` with the base as what its name stands for."""
    rows = _named(unit)
    if base == UNBOUND or not len(rows):
        return meaning
    completed = meaning.copy()
    completed[rows] = base
    return completed


def _needs_base(unit: Unit, edges: CarriedEdges) -> bool:
    counts = is_one_of(edges.kind, BASE_KINDS) | (GOT_RELATIVE[edges.kind] == 1)
    return bool(counts.any() or np.isin(edges.target, _named(unit)).any())


def _named(unit: Unit) -> I64:
    symbols = unit.graph.symbols
    return np.flatnonzero((symbols.block == UNDEFINED) & symbols.name.equal(GOT_NAME.encode()))
