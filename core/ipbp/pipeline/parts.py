"""Static variables that clang keeps in parts: which part in the new object is which in the old one."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from elftools.common.exceptions import DWARFError, ELFParseError

from ipbp.build.debug_sections import sections_from
from ipbp.errors import Refusal
from ipbp.formats.debug_parts import MAKER, MAKER_IS_IN, Part, parts
from ipbp.graph.model import Binding, BlockKind, LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.pipeline.layouts import sections_of_object
from ipbp.stages.name_numbers import base_name

_NUMBERED = re.compile(r"\.\d+$")
_WRITABLE = (BlockKind.DATA, BlockKind.BSS, BlockKind.TLS_DATA, BlockKind.TLS_BSS)
_Key = tuple[tuple[str, ...], int, int]


@dataclass(frozen=True, slots=True)
class PartPairs:
    """`symbol`: new symbol -> old symbol, -1 for a part that the old object does not have. `refusals`: of parts whose
    value the old program did not keep."""

    symbol: dict[int, int]
    refusals: tuple[Refusal, ...] = ()


def pair_parts(old: LinkGraph, new: LinkGraph, file: str) -> PartPairs:
    """What the debug information of both says. `file`: of the unit, for messages."""
    if not all(_has_numbered_state(graph) and _may_have_parts(graph) for graph in (old, new)):
        return PartPairs({})
    before, after = _symbols(old), _symbols(new)
    owners = {key[0] for key in before}
    pairs = {row: before.get(key, -1) for key, row in after.items() if key in before or key[0] in owners}
    lost = [new.symbols.name[row] for row, known in pairs.items() if known < 0]
    return PartPairs(pairs, tuple(_lost(name, file) for name in lost))


def _has_numbered_state(graph: LinkGraph) -> bool:
    home = graph.symbols.block
    rows = np.flatnonzero((graph.symbols.binding == Binding.LOCAL) & (home >= 0))
    rows = rows[is_one_of(graph.blocks.kind[home[rows]], _WRITABLE)]
    return any(_NUMBERED.search(graph.symbols.name[row]) for row in rows.tolist())


def _may_have_parts(graph: LinkGraph) -> bool:
    """Whether a unit may be of the compiler that makes them: gcc numbers variables of functions, and that is all."""
    return any(section.name in MAKER_IS_IN and MAKER in bytes(section.content) for section in graph.side)


def _symbols(graph: LinkGraph) -> dict[_Key, int]:
    """The symbol of each part that is told apart from all others."""
    sections = sections_of_object(graph)
    if ".debug_info" not in sections:
        return {}
    try:
        found = list(parts(sections_from({name[1:]: content for name, content in sections.items()})))
    except (DWARFError, ELFParseError, KeyError, ValueError):
        return {}  # what is damaged is refused where the types are read
    symbols = {(block, offset): row for row, block, offset in _state(graph)}
    keyed: dict[_Key, list[int]] = {}
    for part in found:
        row = symbols.get(_place(graph, part), -1)
        if row >= 0:
            keyed.setdefault((_owner(part, graph.symbols.name[row]), part.offset, part.size), []).append(row)
    return {key: rows[0] for key, rows in keyed.items() if len(rows) == 1}


def _owner(part: Part, symbol: str) -> tuple[str, ...]:
    """The variable that the part is of, by its symbol: clang describes the static variables of a function that is
    inlined everywhere in an entry without a name. How deep it stands tells it from another one of its name."""
    return base_name(symbol), str(len(part.owner)), part.owner[-1]


def _state(graph: LinkGraph) -> list[tuple[int, int, int]]:
    """Row, block and offset of each numbered symbol."""
    return [
        (row, int(graph.symbols.block[row]), int(graph.symbols.offset[row]))
        for row in np.flatnonzero(graph.symbols.block >= 0).tolist()
        if _NUMBERED.search(graph.symbols.name[row])
    ]


def _place(graph: LinkGraph, part: Part) -> tuple[int, int]:
    """Block and offset that the part's fixup leads to."""
    for section in graph.side:
        if section.name == part.section:
            rows = np.flatnonzero(section.offset == part.at)
            if len(rows):
                target = int(section.target[rows[0]])
                offset = int(graph.symbols.offset[target]) + int(section.addend[rows[0]])
                return int(graph.symbols.block[target]), offset
    return -1, 0


def _lost(name: str, file: str) -> Refusal:
    whole = _NUMBERED.sub("", name)
    return Refusal(
        "variable-split",
        f"the edit uses a part of the static variable '{whole}' that the compiler left out of the running program",
        "Use the parts of this variable that were used before, give the new one a name of its own, or restart.",
        name,
        file,
    )
