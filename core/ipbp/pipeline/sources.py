"""What the sources of an object say of its code and variables: debug information tells places, their text the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ipbp.formats.line_rows import place_rows
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.layouts import types_of_object
from ipbp.stages.separation import Sources

_STATIC = re.compile(rb"\b(?:static|thread_local|__thread)\b([^;{}]*)")
_IN_PARENTHESES = re.compile(rb"\([^()]*\)")


def statics_declared(files: Iterable[str], variable: str) -> int:
    """How many static variables of this name the files declare, or rather more; -1 where one cannot be read."""
    name, found = re.compile(rb"\b%b\b" % re.escape(variable.encode())), 0
    for file in files:
        try:
            content = Path(file).read_bytes()
        except OSError:
            return -1
        if name.search(content):
            found += sum(any(map(name.search, _declared(match[1]))) for match in _STATIC.finditer(content))
    return found


def _declared(text: bytes) -> list[bytes]:
    """The declarators, without what they are initialised with."""
    while (shorter := _IN_PARENTHESES.sub(b"", text)) != text:
        text = shorter
    return [part.partition(b"=")[0] for part in text.partition(b"(")[0].split(b",")]


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
