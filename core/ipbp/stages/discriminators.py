"""C++: static variables of one function that have one name.

They stand in different blocks, and the ABI numbers them in the order of the source (Itanium C++ ABI, 5.1.6): `n`, then
`n_0`, `n_1`. An edit that adds or removes a block gives the others the next number, or the one before, as gcc's and
clang's own numbers move in C. So here, too, the number says nothing, and they are paired by who refers to them
(`stages.numbered`). One that several files share is bound by its name, so that where its number would have to be
another one it is said to be ambiguous instead. So is one whose first value speaks against its users.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ipbp.graph.columns import I32
from ipbp.graph.model import Binding, LinkGraph
from ipbp.stages.name_numbers import NameNumbers

UNPAIRED = -1
_SOURCE_NAME = re.compile(r"E(\d+)(?=[A-Za-z_])")
_TAG = re.compile(r"B(\d+)(?=[A-Za-z_])")
_DISCRIMINATOR = re.compile(r"_\d|__\d+_")
_VARIABLE, _GUARD = b"_ZZ", b"_ZGVZ"
_Ambiguous = tuple[tuple[int, tuple[int, ...]], ...]


def without_discriminator(name: str) -> str:
    """The name that the first variable of this name in its function has."""
    for mark in _SOURCE_NAME.finditer(name):
        end = mark.end() + int(mark[1])
        while tag := _TAG.match(name, end):
            end = tag.end() + int(tag[1])
        if _DISCRIMINATOR.fullmatch(name, end):
            return name[:end]
    return name


def with_discriminators(names: NameNumbers, old: LinkGraph, new: LinkGraph) -> NameNumbers:
    """The numbers of names, where a discriminator is none of the name's own."""
    graphs = old, new
    found = [(side, row, stem) for side, graph in enumerate(graphs) for row, stem in _numbered(graph)]
    if not found:
        return names
    number: dict[str, int] = {}
    for graph, column in zip(graphs, (names.old_name, names.new_name), strict=True):
        stems = sorted({stem for _side, _row, stem in found} - number.keys())
        rows = graph.symbols.name.rows_of(stems).tolist()
        number |= {stem: int(column[row]) for stem, row in zip(stems, rows, strict=True) if row >= 0}
    base = names.old_base.copy(), names.new_base.copy()
    is_numbered = names.old_is_numbered.copy(), names.new_is_numbered.copy()
    limit = names.limit
    for side, row, stem in found:
        if stem not in number:
            number[stem], limit = limit, limit + 1
        base[side][row], is_numbered[side][row] = number[stem], True
    return NameNumbers(names.old_name, names.new_name, *base, *is_numbered, limit)


def doubted(old: LinkGraph, new: LinkGraph, by_name: I32, symbol: I32, known: _Ambiguous) -> _Ambiguous:
    """Take apart what is paired otherwise than `by_name` and seen by other files, and what begins with another value
    where a namesake begins with the same; these are returned as ambiguous. `known`: that are already."""
    told = {row for row, _ in known}
    is_other = (symbol != by_name) & (new.symbols.binding != Binding.LOCAL) & (new.symbols.block >= 0)
    found = {row: {int(by_name[row]), int(symbol[row])} for row in np.flatnonzero(is_other).tolist()}
    found |= dict(_contradicted(old, new, symbol))
    symbol[list(found)] = UNPAIRED
    return tuple((row, tuple(sorted(olds - {UNPAIRED}))) for row, olds in found.items() if row not in told)


def _contradicted(old: LinkGraph, new: LinkGraph, symbol: I32) -> Iterator[tuple[int, set[int]]]:
    groups: dict[str, tuple[list[int], list[int]]] = {}
    for side, graph in enumerate((old, new)):
        for row in _rows(graph, _VARIABLE):
            groups.setdefault(without_discriminator(graph.symbols.name[row]), ([], []))[side].append(row)
    for before, after in groups.values():
        if max(len(before), len(after)) < 2:
            continue
        values = {row: _value(old, row) for row in before}
        others = {row: _value(new, row) for row in after}
        for row, value in others.items():
            pair = int(symbol[row])
            if pair not in values or values[pair] == value:
                continue
            rivals = {one for one in before if values[one] == value}
            if rivals or any(others[other] == values[pair] for other in after):
                yield row, {pair, *rivals}


def _value(graph: LinkGraph, row: int) -> bytes:
    """What it begins with, but for the addresses in it."""
    block = int(graph.symbols.block[row])
    return bytes(graph.content(block)).ljust(int(graph.blocks.size[block]), b"\0")


def pair_guards(old: LinkGraph, new: LinkGraph, symbol: I32) -> None:
    """A guard is the guard of the variable that its variable is, where there are several of one name."""
    before, after = ({graph.symbols.name[row]: row for row in _rows(graph, _GUARD)} for graph in (old, new))
    several = {stem for name in (*before, *after) if (stem := without_discriminator(name)) != name}
    variables = {new.symbols.name[row]: row for row in _rows(new, _VARIABLE)} if several else {}
    for name, row in after.items():
        variable = variables.get(f"_Z{name[len(_GUARD) - 1 :]}")
        if variable is not None and without_discriminator(name) in several:
            known = int(symbol[variable])
            symbol[row] = before.get(f"_ZGV{old.symbols.name[known][2:]}", UNPAIRED) if known >= 0 else UNPAIRED


def _numbered(graph: LinkGraph) -> list[tuple[int, str]]:
    """The definitions with a discriminator, and what they are called without it."""
    rows = _rows(graph, _VARIABLE) + _rows(graph, _GUARD)
    named = ((row, name, without_discriminator(name)) for row in rows for name in (graph.symbols.name[row],))
    return [(row, stem) for row, name, stem in named if stem != name]


def _rows(graph: LinkGraph, prefix: bytes) -> list[int]:
    rows: list[int] = np.flatnonzero(graph.symbols.name.start_with(prefix) & (graph.symbols.block >= 0)).tolist()
    return rows
