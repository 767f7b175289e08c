"""Functions whose exception tables differ although their code is the same.

What a function catches, and which of its places lead to a handler, stands in a table of its own (Itanium C++ ABI,
Exception Handling, level II): `catch (A &)` and `catch (B &)` may be one code.
"""

from __future__ import annotations

import numpy as np

from ipbp.graph.columns import I64
from ipbp.graph.model import LinkGraph
from ipbp.stages.correlate import Correlation
from ipbp.stages.unwind import unwind_links

_SECTION = b".gcc_except_table"
_NONE = -1


def with_other_tables(old: LinkGraph, new: LinkGraph, correlation: Correlation) -> I64:
    """New blocks of code whose counterpart has another exception table."""
    before, after = _tables(old), _tables(new)
    # Most edits change no table, and unwind rows are many: they are read when some table is not on the other side.
    known, wanted = correlation.old_colour[before], correlation.new_colour[after]
    if not len(before) or (np.isin(known, wanted).all() and np.isin(wanted, known).all()):
        return np.empty(0, dtype=np.int64)
    one, other = (_table_of(graph) for graph in (old, new))
    rows = np.flatnonzero((correlation.block >= 0) & (other != _NONE))
    pair = one[correlation.block[rows]]
    different = (pair == _NONE) | (correlation.old_colour[pair] != correlation.new_colour[other[rows]])
    found: I64 = rows[different]
    return found


def _tables(graph: LinkGraph) -> I64:
    """Blocks that are exception tables."""
    is_table = graph.sections.name.start_with(_SECTION)
    found: I64 = np.flatnonzero(is_table[graph.blocks.section]) if len(graph.blocks) else np.empty(0, np.int64)
    return found


def _table_of(graph: LinkGraph) -> I64:
    """For each block of code the block that is its table, or _NONE."""
    links = unwind_links(graph)
    result = np.full(len(graph.blocks), _NONE, dtype=np.int64)
    home = graph.symbols.block[links.symbol]
    own = links.is_own & (home >= 0)
    result[links.block[own]] = home[own]
    return result
