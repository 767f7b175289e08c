"""Entries at which the running program has more functions than one.

Identical code folding (`--icf` of gold, lld and mold, gcc's -fipa-icf) and aliases make one function of several. The
jump at its entry is taken by whoever calls any of them, so it may only be written when all of them become the same
new code: names of one new block, or blocks of one object that are alike. Else each caller of the others would run
code that is not meant for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import Binding, BlockKind, LinkGraph, SymbolType
from ipbp.graph.rows import is_one_of
from ipbp.stages.name_numbers import base_name
from ipbp.stages.rust_names import is_rust
from ipbp.stages.select import OldSide, Replaced, Selection

_FUNCTION = (SymbolType.FUNCTION, SymbolType.IFUNC)


@dataclass(frozen=True, slots=True)
class _Claim:
    unit: int
    row: Replaced


def one_jump_each(
    selections: Sequence[Selection], running: Sequence[OldSide], image: LoadedImage
) -> tuple[list[tuple[Replaced, ...]], tuple[Refusal, ...]]:
    """For each selection its replaced functions, one for each entry, and `entry-shared` for entries that belong to
    functions which the patch does not make alike. `running`: the old sides of all edited units, of the unchanged ones
    too; `image`: what holds the entries."""
    claims: dict[int, list[_Claim]] = {}
    for unit, selection in enumerate(selections):
        for row in selection.replaced:
            claims.setdefault(row.entry, []).append(_Claim(unit, row))
    names = _running_names(claims, running, image)
    _forget_removed(names, selections, running)
    _forget_former(names, claims, selections, running)
    refusals = []
    for entry, claimed in claims.items():
        others = names[entry] - Counter(name for claim in claimed for name in _names(selections[claim.unit], claim.row))
        if others or not _alike(selections, claimed):
            refusals.append(_shared(selections[claimed[0].unit], claimed, others))
    first = {id(claimed[0].row) for claimed in claims.values()}
    return [tuple(row for row in selection.replaced if id(row) in first) for selection in selections], tuple(refusals)


def _running_names(
    entries: Mapping[int, object], running: Sequence[OldSide], image: LoadedImage
) -> dict[int, Counter[str]]:
    """Names of functions at each of these load addresses: by the image's symbols, and by what is known of the units
    (a linker may leave out a static function that it folded)."""
    found: dict[int, Counter[str]] = {entry: Counter() for entry in entries}
    table = image.symbols
    here = np.isin(table.address, list(entries)) & is_one_of(table.type, _FUNCTION) & (table.size > 0)
    for row in np.flatnonzero(here).tolist():
        found[int(table.address[row])][_plain(table.name[row])] += 1
    by_units: dict[int, Counter[str]] = {entry: Counter() for entry in entries}
    for old in running:
        for symbol in _functions_at(old, entries):
            names = by_units[int(old.address[symbol])]
            name, is_local = _plain(old.graph.symbols.name[symbol]), old.graph.symbols.binding[symbol] == Binding.LOCAL
            # A shared function that moved from one unit to another is on the old sides of both.
            if is_local or not names[name]:
                names[name] += 1
    return {entry: found[entry] | by_units[entry] for entry in entries}


def _functions_at(old: OldSide, entries: Iterable[int]) -> list[int]:
    """Rows of symbols at the start of code that is at one of these load addresses."""
    graph = old.graph
    symbols = graph.symbols
    home = np.maximum(symbols.block, 0)
    starts = (symbols.block >= 0) & (symbols.offset == 0) & is_one_of(symbols.type, _FUNCTION)
    if len(graph.blocks):
        starts &= graph.blocks.kind[home] == BlockKind.CODE
    rows = np.flatnonzero(starts)
    found: list[int] = rows[np.isin(old.address[rows], list(entries))].tolist()
    return found


def _forget_removed(
    names: Mapping[int, Counter[str]], selections: Sequence[Selection], running: Sequence[OldSide]
) -> None:
    """Static functions that the new source has no more: nobody calls them by that name from now on."""
    for old in running:
        rows = [row for row in _functions_at(old, names) if old.graph.symbols.binding[row] == Binding.LOCAL]
        left = _left([old.graph.symbols.name[row] for row in rows], selections)
        for row in rows:
            name = old.graph.symbols.name[row]
            if name not in left:
                names[int(old.address[row])][_plain(name)] -= 1


def _left(names: Sequence[str], selections: Iterable[Selection]) -> set[str]:
    """Those of the names that a new object has."""
    tables = [selection.unit.graph.symbols.name for selection in selections] if names else []
    return {names[at] for table in tables for at in np.flatnonzero(table.rows_of(names) >= 0).tolist()}


def _forget_former(
    names: Mapping[int, Counter[str]],
    claims: Mapping[int, Sequence[_Claim]],
    selections: Sequence[Selection],
    running: Sequence[OldSide],
) -> None:
    """Functions of which another one is the next version, under its own name; and those names that the image still has
    of what earlier patches gave other ones."""
    for entry, claimed in claims.items():
        former_names = sorted({claim.row.former for claim in claimed} - {""})
        for former in set(former_names) - _left(former_names, selections):
            names[entry][_plain(former)] = 0
    for old in running:
        here = [former for former, entry in old.formers.items() if entry in names]
        for former in set(here) - _left(here, selections):
            names[old.formers[former]][_plain(former)] -= 1


def _names(selection: Selection, row: Replaced) -> Iterable[str]:
    symbols = selection.unit.graph.symbols
    for symbol in np.flatnonzero((symbols.block == row.block) & (symbols.offset == 0)).tolist():
        yield _plain(symbols.name[symbol])


def _plain(name: str) -> str:
    # Without a library's version (.symver), and without the number of a clone, which may be another one now.
    return base_name(name.partition("@")[0])


def _alike(selections: Sequence[Selection], claimed: Sequence[_Claim]) -> bool:
    """Whether these are the same code: equal bytes with the same fixups for the same things."""
    first, graph = claimed[0], selections[claimed[0].unit].unit.graph
    return all(claim.unit == first.unit and _equal(graph, first.row.block, claim.row.block) for claim in claimed[1:])


def _equal(graph: LinkGraph, one: int, other: int) -> bool:
    edges, here, there = graph.edges, graph.edges_of(one), graph.edges_of(other)
    columns = (edges.offset, edges.kind, edges.target, edges.addend)
    return graph.content(one) == graph.content(other) and all(
        np.array_equal(column[here], column[there]) for column in columns
    )


def _shared(selection: Selection, claimed: Sequence[_Claim], others: Counter[str]) -> Refusal:
    name = claimed[0].row.name
    more = sorted({*(+others), *(claim.row.name for claim in claimed[1:])} - {name}) or [name]
    rest = ", ".join(f"'{other}'" for other in more[:4]) + (f" and {len(more) - 4} more" if len(more) > 4 else "")
    way_out = "link without --icf (gcc: compile with -fno-ipa-icf)"
    if is_rust(name):
        way_out = "build with different code in them, which LLVM does not make one,"
    return Refusal(
        "entry-shared",
        f"'{name}' and {rest} are one function in the running program (identical code folding, or an alias), and this "
        "edit makes them different",
        f"Edit them all alike, or {way_out} and start the program once more.",
        name,
        selection.unit.name,
    )
