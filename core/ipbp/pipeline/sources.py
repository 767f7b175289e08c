"""Where the code and the variables of an object stand in its sources, out of its debug information."""

from __future__ import annotations

import numpy as np

from ipbp.formats.line_rows import place_rows
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.layouts import types_of_object
from ipbp.stages.separation import Sources


def sources_of(graph: LinkGraph) -> Sources:
    """Errors: `debug-information-malformed`."""
    fields: dict[int, int] = {}
    start = 0
    for section in graph.side:
        if section.name == ".debug_info":
            fields.update(zip((section.offset + start).tolist(), section.target.tolist(), strict=True))
            start += len(section.content)
    named = graph.symbols.name
    rows = types_of_object(graph).definitions
    symbols = np.array([fields.get(row.field, -1) for row in rows], dtype=np.int64)
    by_name = named.rows_of([row.name for row in rows]) if rows else symbols
    found = np.where(symbols >= 0, symbols, by_name)
    homes = np.where(found >= 0, graph.symbols.block[found], -1)
    places = [(home, row) for home, row in zip(homes.tolist(), rows, strict=True) if home >= 0]
    return Sources(
        {home: row.place for home, row in places},
        lambda block: place_rows(graph, block),
        frozenset(home for home, row in places if row.is_plain),
    )
