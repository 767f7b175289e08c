"""C++: definitions whose names differ though they are the same thing, and static variables of which that is in doubt.

The linkage is a part of such a name: an `L` before the name of what only its file sees (Itanium C++ ABI, 5.1.4.1, as
compilers do it), in the names of a function's static variables and their guards, too; a static variable of no
namespace has a mangled name while a global one has none; and so is a namespace without a name. It is the same function,
and the same variable with the value that it has.

What a function takes is a part of its name, and so of the names of its static variables. Where a function has gone and
one that is called as it was has come, the variables are those of before, though the function is another one. But a
compiler leaves out what nobody uses: the one that seems to have gone may be there still, and the one that seems to have
come may have been there before. Then they are different variables. So the source must have just as many static
variables of that name as the object has; where it has not, or where several could be meant, nothing is paired, and who
uses them is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ipbp.graph.columns import I32, I64
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.graph.rows import is_one_of
from ipbp.stages.cxx_names import local_name, without_unnamed
from ipbp.stages.name_numbers import base_name, is_numbered

_UNPAIRED = -1
_MARK = re.compile(r"L(?=\d+[A-Za-z_])")
_VARIABLE = re.compile(r"_ZL(\d+)([A-Za-z_]\w*)")
_UNNAMED = b"_GLOBAL__N_"
_STATE = (BlockKind.DATA, BlockKind.BSS, BlockKind.TLS_DATA, BlockKind.TLS_BSS)

Declared = Callable[[str], int]
"""How many static variables of this name the source declares."""


def pair_other_linkage(old: LinkGraph, new: LinkGraph, symbol: I32) -> None:
    """Fill in the pairs of definitions that differ in their linkage alone, where neither side has both."""
    left = _left(old, new, symbol)
    _pair(old, new, *left, symbol, lambda name, _is_code: without_linkage(name))
    if any(
        len(graph.symbols.name.take(rows).containing(_UNNAMED)) for graph, rows in zip((old, new), left, strict=True)
    ):
        _pair(old, new, *_left(old, new, symbol), symbol, without_unnamed)


def pair_statics(
    old: LinkGraph, new: LinkGraph, symbol: I32, declared: Declared
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Fill in the pairs of variables in functions that are called otherwise now, or are others; those that may be any
    of several, or another one, are returned with what they may be."""
    before, after = (_statics(graph, rows) for graph, rows in zip((old, new), _left(old, new, symbol), strict=True))
    doubtful = []
    for key, group in after.items():
        known = before.get(key)
        if known is None or _are_numbered(old, known.rows, new, group.rows):
            continue
        variable = group.variables.pop()
        if (
            len(group.rows) == len(known.rows) == 1
            and group.is_certain
            and known.is_certain
            and declared(variable) == _count(new, variable)
        ):
            symbol[group.rows[0]] = known.rows[0]
        elif not group.is_guard:
            doubtful += [(row, tuple(known.rows)) for row in group.rows]
    return tuple(doubtful)


def same_statics(old: Iterable[str], new: Iterable[str], graph: LinkGraph, declared: Declared) -> dict[str, str]:
    """Variables of functions that take something else now, by their linkage names without a compiler's endings: the new
    name -> the old one, where `pair_statics` would be certain. `graph`: the new object."""
    before, after = set(old), set(new)
    gone, come = (_by_key(names) for names in (before - after, after - before))
    return {
        rows[0]: gone[key][0]
        for key, rows in come.items()
        if len(rows) == len(gone.get(key, ())) == 1
        and (name := local_name(rows[0])) is not None
        and declared(name.variable) == _count(graph, name.variable)
    }


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        local = local_name(name)
        if local is not None and local.is_certain and not local.is_guard:
            found.setdefault(local.key, []).append(name)
    return found


def _are_numbered(old: LinkGraph, before: Iterable[int], new: LinkGraph, after: Iterable[int]) -> bool:
    """Whether these are parts of one variable, or copies, that a compiler numbers (`stages.numbered`)."""
    bases = {base_name(old.symbols.name[row]) for row in before}
    names = [new.symbols.name[row] for row in after]
    return all(is_numbered(name) and base_name(name) in bases for name in names)


@dataclass(slots=True)
class _Group:
    """Variables of one key."""

    is_guard: bool
    rows: list[int] = field(default_factory=list)
    variables: set[str] = field(default_factory=set)
    is_certain: bool = True


def _statics(graph: LinkGraph, rows: I64) -> dict[str, _Group]:
    """The variables of functions and their guards among these definitions, by what they are called."""
    found: dict[str, _Group] = {}
    for row in _of_functions(graph, rows):
        name = local_name(graph.symbols.name[row])
        if name is not None:
            group = found.setdefault(name.key, _Group(name.is_guard))
            group.rows.append(row)
            group.variables.add(name.variable)
            group.is_certain &= name.is_certain
    return found


def _of_functions(graph: LinkGraph, rows: I64) -> list[int]:
    names = graph.symbols.name.take(rows)
    rows = rows[names.start_with(b"_ZZ") | names.start_with(b"_ZGVZ")]
    chosen: list[int] = rows[is_one_of(graph.blocks.kind[graph.symbols.block[rows]], _STATE)].tolist()
    return chosen


def _count(graph: LinkGraph, variable: str) -> int:
    """How many declarations of such a variable in a function the object has something of."""
    defined = np.flatnonzero(graph.symbols.block >= 0)
    wanted = defined[np.isin(defined, graph.symbols.name.containing(variable.encode()))]
    names = [local_name(graph.symbols.name[row]) for row in _of_functions(graph, wanted)]
    known = (name for name in names if name is not None and name.variable == variable and not name.is_guard)
    return len({name.declaration for name in known})


def _left(old: LinkGraph, new: LinkGraph, symbol: I32) -> tuple[I64, I64]:
    """The definitions of both sides that have a name and are not paired."""
    is_known = np.zeros(len(old.symbols), dtype=np.bool_)
    is_known[symbol[symbol >= 0]] = True
    return (
        np.flatnonzero(~is_known & (old.symbols.block >= 0) & old.symbols.name.are_given()),
        np.flatnonzero((symbol == _UNPAIRED) & (new.symbols.block >= 0) & new.symbols.name.are_given()),
    )


def _pair(
    old: LinkGraph, new: LinkGraph, gone: I64, come: I64, symbol: I32, called: Callable[[str, bool], str]
) -> None:
    before = _by_meaning(old, gone.tolist(), called)
    after = _by_meaning(new, come.tolist(), called) if before else {}
    for key, rows in after.items():
        pair = before.get(key, [])
        if len(rows) == len(pair) == 1 and old.symbols.name[pair[0]] != new.symbols.name[rows[0]]:
            symbol[rows[0]] = pair[0]


def without_linkage(name: str) -> str:
    """What the name is called, whoever sees it."""
    variable = _VARIABLE.fullmatch(name)
    if variable is not None and int(variable[1]) == len(variable[2]):
        return variable[2]
    return _MARK.sub("", name) if name.startswith("_Z") else name


def plain_function(name: str) -> str:
    """What a function is called, whoever sees it."""
    return without_unnamed(without_linkage(name), True) or name


def _by_meaning(
    graph: LinkGraph, rows: Iterable[int], called: Callable[[str, bool], str]
) -> Mapping[tuple[str, bool], list[int]]:
    """Functions and variables, apart, by what they are called; what is called nothing is left out."""
    found: dict[tuple[str, bool], list[int]] = {}
    for row in rows:
        name = graph.symbols.name[row]
        is_code = bool(graph.blocks.kind[graph.symbols.block[row]] == BlockKind.CODE)
        key = called(name, is_code) if name else ""
        if key:
            found.setdefault((key, is_code), []).append(row)
    return found
