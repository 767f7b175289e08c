"""Static variables that clang keeps in parts: which part in the new object is which in the old one."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from elftools.common.exceptions import DWARFError, ELFParseError

from ipbp.build.debug_sections import sections_from
from ipbp.build.split_units import is_skeleton, split_part
from ipbp.errors import Refusal
from ipbp.formats.debug_parts import MAKER, MAKER_IS_IN, Part, parts
from ipbp.graph.model import Binding, BlockKind, LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.pipeline.layouts import sections_of_object
from ipbp.stages.compare import Comparison, Status
from ipbp.stages.compilers import is_of_clang
from ipbp.stages.linkage import Declared, same_statics
from ipbp.stages.name_numbers import base_name

_NUMBERED = re.compile(r"\.\d+$")
_WRITABLE = (BlockKind.DATA, BlockKind.BSS, BlockKind.TLS_DATA, BlockKind.TLS_BSS)


@dataclass(frozen=True, slots=True)
class _Key:
    """`whole`: the symbol of the variable that the part is of: clang describes the static variables of a function that
    is inlined everywhere in an entry without a name. How `deep` it stands, and what it is `called` there, tells it from
    another one. The rest is as in `Part`."""

    whole: str
    deep: int
    called: str
    offset: int
    size: int
    meaning: bytes


@dataclass(frozen=True, slots=True)
class PartPairs:
    """`symbol`: new symbol -> old symbol, -1 for a part that the old object does not have. `refusals`: of parts whose
    value the old program did not keep. `undescribed`: new symbols of parts of which nothing tells what they are in the
    old object."""

    symbol: dict[int, int]
    refusals: tuple[Refusal, ...] = ()
    undescribed: tuple[int, ...] = ()


def pair_parts(old: LinkGraph, new: LinkGraph, file: str, declared: Declared = lambda _variable: -1) -> PartPairs:
    """What the debug information of both says. `file`: of the unit, for messages. `declared`: see `stages.linkage`."""
    if not all(_has_numbered_state(graph) for graph in (old, new)):
        return PartPairs({})
    is_described = all(_may_have_parts(graph) for graph in (old, new))
    (before, _), (after, told) = (_symbols(graph) if is_described else ({}, set()) for graph in (old, new))
    led = same_statics({key.whole for key in before}, {key.whole for key in after}, new, declared)
    meant = {row: _as_before(key, led) for key, row in after.items()}
    owners = {_owner(key) for key in before}
    pairs = {row: before.get(key, -1) for row, key in meant.items() if key in before or _owner(key) in owners}
    places = {replace(key, meaning=b"") for key in before}
    lost = [row for row, known in pairs.items() if known < 0]
    refusals = (_lost(new.symbols.name[row], replace(meant[row], meaning=b"") in places, file) for row in lost)
    undescribed = [row for row in after.values() if row not in pairs]
    undescribed += _undescribed(new, told) if is_of_clang(new) else ()
    return PartPairs(pairs, tuple(refusals), tuple(undescribed))


def unknown_parts(known: PartPairs, new: LinkGraph, comparison: Comparison, file: str) -> Iterator[Refusal]:
    """A refusal for each part that changed code uses and of which nothing tells what it is."""
    edges, symbols = new.edges, new.symbols
    for row in known.undescribed:
        home = int(symbols.block[row])
        users = edges.block[symbols.block[edges.target] == home]
        users = users[(new.blocks.kind[users] == BlockKind.CODE) & (comparison.status[users] != Status.SAME)]
        if comparison.old_block[home] >= 0 and len(users):
            yield _unknown(symbols.name[row], new.block_name(int(users[0])), file)


def _as_before(key: _Key, led: Mapping[str, str]) -> _Key:
    """The part of a variable that had another name."""
    whole = led.get(key.whole, key.whole)
    return replace(key, whole=whole, called=whole if key.called == key.whole else key.called)


def _owner(key: _Key) -> tuple[str, int, str]:
    return key.whole, key.deep, key.called


def numbered_state(graph: LinkGraph) -> list[int]:
    """Symbols of variables that have a number."""
    home = graph.symbols.block
    rows = np.flatnonzero((graph.symbols.binding == Binding.LOCAL) & (home >= 0))
    rows = rows[is_one_of(graph.blocks.kind[home[rows]], _WRITABLE)]
    return [row for row in rows.tolist() if _NUMBERED.search(graph.symbols.name[row])]


def _has_numbered_state(graph: LinkGraph) -> bool:
    return bool(numbered_state(graph))


def _may_have_parts(graph: LinkGraph) -> bool:
    """Whether a unit may be of the compiler that makes them: gcc numbers variables of functions, and that is all."""
    return is_of_clang(graph) or any(
        section.name in MAKER_IS_IN and MAKER in bytes(section.content) for section in graph.side
    )


def _undescribed(graph: LinkGraph, described: Collection[int]) -> Iterator[int]:
    """Parts of variables that have no whole. Where there is one, the number is that of another variable of its name.
    Those of a thread are not taken apart."""
    symbols = graph.symbols
    wholes = set(symbols.name.take(np.flatnonzero(symbols.block >= 0)))
    for row in numbered_state(graph):
        is_shared = graph.blocks.kind[symbols.block[row]] in (BlockKind.DATA, BlockKind.BSS)
        if is_shared and row not in described and base_name(symbols.name[row]) not in wholes:
            yield row


def _symbols(graph: LinkGraph) -> tuple[dict[_Key, int], set[int]]:
    """The symbol of each part that is told apart from all others; and all that are described, as parts or as whole."""
    sections = sections_of_object(graph)
    if ".debug_info" not in sections:
        return {}, set()
    try:
        found = list(parts(sections_from({name[1:]: content for name, content in sections.items()}), _split))
    except (DWARFError, ELFParseError, KeyError, ValueError, AssertionError):
        return {}, set()  # what is damaged is refused where the types are read
    symbols = {(int(graph.symbols.block[row]), int(graph.symbols.offset[row])): row for row in numbered_state(graph)}
    keyed: dict[_Key, list[int]] = {}
    told: set[int] = set()
    for part in found:
        row = symbols.get(_place(graph, part), -1)
        if row < 0:
            continue
        told.add(row)
        if part.size or part.meaning:
            whole, called = base_name(graph.symbols.name[row]), part.owner[-1]
            key = _Key(whole, len(part.owner), called, part.offset, part.size, part.meaning)
            keyed.setdefault(key, []).append(row)
    return {key: rows[0] for key, rows in keyed.items() if len(rows) == 1}, told


def _split(unit: Any) -> Any:
    """What the unit stands for, where its `.dwo` file is at hand."""
    if not is_skeleton(unit):
        return None
    directory = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
    return split_part(unit, os.fsdecode(directory.value) if directory is not None else "")


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


def _lost(name: str, has_other_values: bool, file: str) -> Refusal:
    if has_other_values:
        return Refusal(
            "variable-split",
            f"the compiler keeps of a part of the static variable '{base_name(name)}' which of two values it has, and "
            "the edit changes which values these are, so that what it is now would become another value",
            "Give it a new name, leave the values that it is given as they are, or restart.",
            name,
            file,
        )
    return Refusal(
        "variable-split",
        f"the edit uses a part of the static variable '{base_name(name)}' that the compiler left out of the running "
        "program",
        "Use the parts of this variable that were used before, give the new one a name of its own, or restart.",
        name,
        file,
    )


def _unknown(name: str, user: str, file: str) -> Refusal:
    return Refusal(
        "variable-split",
        f"'{user}' uses '{name}', which clang made of the static variable '{base_name(name)}', and nothing tells which "
        "part of it that is in the running program",
        "Build this file with -g, and edit the function where it is; or leave what uses this variable out of the edit.",
        name,
        file,
    )
