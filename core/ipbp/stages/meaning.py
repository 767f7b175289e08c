"""What each edge of a pair of graphs leads to, in numbers that mean the same on both sides.

A target is (token, value): which thing, and how far into it. Tokens of blocks that are known by name come from the
correlation, those of unnamed content from its colour, those of outside symbols from their name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ipbp.graph.model import I64, LinkGraph
from ipbp.stages.correlate import Correlation


@dataclass(frozen=True, slots=True)
class Meaning:
    """One side. `block`: the token of each block, odd for content; `symbol`: that of each symbol outside of blocks,
    negative; `token` and `value`: columns beside the graph's edges."""

    graph: LinkGraph
    block: I64
    symbol: I64
    token: I64
    value: I64


def meanings(old: LinkGraph, new: LinkGraph, correlation: Correlation) -> tuple[Meaning, Meaning]:
    """Both sides' meanings under one correlation."""
    old_block = np.arange(len(old.blocks), dtype=np.int64) * 2
    fresh = (len(old.blocks) + np.arange(len(new.blocks), dtype=np.int64)) * 2
    new_block = np.where(correlation.block >= 0, correlation.block.astype(np.int64) * 2, fresh)
    # All copies of one function are the same to who calls them.
    old_block = np.where(correlation.old_group >= 0, correlation.old_group * 2, old_block)
    new_block = np.where(correlation.new_group >= 0, correlation.new_group * 2, new_block)
    old_block = np.where(correlation.old_colour >= 0, correlation.old_colour.astype(np.int64) * 2 + 1, old_block)
    new_block = np.where(correlation.new_colour >= 0, correlation.new_colour.astype(np.int64) * 2 + 1, new_block)
    old_symbol = -1 - np.arange(len(old.symbols), dtype=np.int64)
    unknown = -1 - len(old.symbols) - np.arange(len(new.symbols), dtype=np.int64)
    new_symbol = np.where(correlation.symbol >= 0, -1 - correlation.symbol.astype(np.int64), unknown)
    return _meaning(old, old_block, old_symbol), _meaning(new, new_block, new_symbol)


def again(meaning: Meaning, graph: LinkGraph) -> Meaning:
    """The same meanings for a graph that has more edges and is otherwise the same."""
    return meaning if graph is meaning.graph else _meaning(graph, meaning.block, meaning.symbol)


def _meaning(graph: LinkGraph, block: I64, symbol: I64) -> Meaning:
    target = graph.edges.target
    home = graph.symbols.block[target].astype(np.int64)
    placed = home >= 0
    token = symbol[target]
    token[placed] = block[home[placed]]
    value = graph.edges.addend + np.where(placed, graph.symbols.offset[target], 0)
    return Meaning(graph, block, symbol, token, value)
