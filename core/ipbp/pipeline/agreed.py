"""Units of one image that define the same by right: each definition is brought by one of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ipbp.graph.linkonce import is_linkonce
from ipbp.graph.model import SymbolType
from ipbp.graph.unit import UNBOUND
from ipbp.pipeline.judge import Judged, judge_without
from ipbp.pipeline.moves import Followed
from ipbp.stages.one_copy import Claim, one_copy


def one_of_each_copy(followed: Followed) -> Followed:
    """The units again, without what another one brings."""
    units = followed.judged
    found = one_copy([_claim(unit) for unit in units])
    judged = tuple(
        judge_without(unit, names) if names else unit for unit, names in zip(units, found.elsewhere, strict=True)
    )
    return replace(
        followed,
        judged=judged,
        notes=(*followed.notes, *found.notes),
        refusals=(*followed.refusals, *found.refusals),
    )


def _claim(unit: Judged) -> Claim:
    return Claim(unit.old, unit.comparison, unit.selection, _first_place(unit), unit.edited.is_optimised)


def _first_place(unit: Judged) -> int:
    """The lowest load address of code that is this unit's alone. Linkers lay code out in the order of the files."""
    graph, address = unit.old.graph, unit.old.address
    own = (graph.symbols.type == SymbolType.FUNCTION) & ~is_linkonce(graph) & (address != UNBOUND)
    return int(address[own].min(initial=np.iinfo(np.int64).max))
