"""Functions whose exception tables differ although their code is the same.

What a function catches, and which of its places lead to a handler, stands in a table of its own (Itanium C++ ABI,
Exception Handling, level II): `catch (A &)` and `catch (B &)` may be one code.
"""

from __future__ import annotations

import numpy as np

from ipbp.graph.columns import I32, I64, Flags
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
    one, other = (table_of(graph) for graph in (old, new))
    rows = np.flatnonzero((correlation.block >= 0) & (other != _NONE))
    pair = one[correlation.block[rows]]
    different = (pair == _NONE) | (correlation.old_colour[pair] != correlation.new_colour[other[rows]])
    found: I64 = rows[different]
    return found


def with_changed_tables(old: LinkGraph, new: LinkGraph, correlation: Correlation, changed: Flags) -> I64:
    """The same for objects that say themselves which block describes which code. `changed`: of each new block, whether
    it is another one than its counterpart, by itself or by what it leads to."""
    before, after = old.exception_tables, new.exception_tables
    limit = 2 * (len(old.blocks) + len(new.blocks)) + int(correlation.old_colour.max(initial=0)) + 2
    limit += int(correlation.new_colour.max(initial=0))

    def pairs(code: I64, table: I64, colour: I32, pair: I64) -> I64:
        # By content where that is what the table is known by.
        token = np.where(colour[table] >= 0, colour[table], limit // 2 + np.maximum(pair, -1) + 1)
        return code * limit + token

    rows = np.flatnonzero(correlation.block[after[:, 0]] >= 0)
    code, table = after[rows, 0], after[rows, 1]
    one = pairs(before[:, 0], before[:, 1], correlation.old_colour, before[:, 1])
    partner = correlation.block.astype(np.int64)
    other = pairs(partner[code], table, correlation.new_colour, partner[table])
    different = changed[table] | ~np.isin(other, one)
    # What had a table and has none now.
    lost = np.isin(partner, before[~np.isin(one, other), 0]) & (partner >= 0)
    found: I64 = np.union1d(code[different], np.flatnonzero(lost))
    return found


def _tables(graph: LinkGraph) -> I64:
    """Blocks that are exception tables."""
    is_table = graph.sections.name.start_with(_SECTION)
    found: I64 = np.flatnonzero(is_table[graph.blocks.section]) if len(graph.blocks) else np.empty(0, np.int64)
    return found


def table_of(graph: LinkGraph) -> I64:
    """For each block of code the block that is its table, or -1."""
    result = np.full(len(graph.blocks), _NONE, dtype=np.int64)
    if not len(_tables(graph)):
        return result
    links = unwind_links(graph)
    home = graph.symbols.block[links.symbol]
    own = links.is_own & (home >= 0)
    result[links.block[own]] = home[own]
    return result
