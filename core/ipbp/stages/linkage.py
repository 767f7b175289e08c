"""C++ names of what became static, or is static no more, and of variables of a function that takes something else now.

The linkage is a part of such a name: an `L` before the name of what only its file sees (Itanium C++ ABI, 5.1.4.1, as
compilers do it), in the names of a function's static variables and their guards, too; and a static variable of no
namespace has a mangled name while a global one has none. It is the same function, and the same variable with the
value that it has.

What a function takes is a part of its name, and so of the names of its static variables (5.1.6, "Scope Encoding").
Where a function has gone and one that is called as it was has come, the variables are those of before. The function is
another one: it is not called as the old one was.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from ipbp.graph.columns import I32
from ipbp.graph.model import BlockKind, LinkGraph

_UNPAIRED = -1
_IN_FUNCTION = re.compile(r"_Z(?:GV)?Z")
_LENGTH = re.compile(r"L?(\d+)")
_AT_THE_END = re.compile(r"E(\d+)([A-Za-z_]\w*?)(?:_\d*_?)?$")
_MARK = re.compile(r"L(?=\d+[A-Za-z_])")
_VARIABLE = re.compile(r"_ZL(\d+)([A-Za-z_]\w*)")


def pair_other_linkage(old: LinkGraph, new: LinkGraph, symbol: I32) -> None:
    """Fill in the pairs of definitions that differ in their linkage alone, where neither side has both; then those of
    variables in functions that differ in what they take."""
    _pair(old, new, symbol, without_linkage)
    _pair(old, new, symbol, without_parameters)


def _pair(old: LinkGraph, new: LinkGraph, symbol: I32, called: Callable[[str], str]) -> None:
    is_known = np.zeros(len(old.symbols), dtype=np.bool_)
    is_known[symbol[symbol >= 0]] = True
    before = _by_meaning(old, np.flatnonzero(~is_known & (old.symbols.block >= 0)).tolist(), called)
    if not before:
        return
    after = _by_meaning(new, np.flatnonzero((symbol == _UNPAIRED) & (new.symbols.block >= 0)).tolist(), called)
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


def without_parameters(name: str) -> str:
    """Of a variable in a function: its name without what the function takes; "" for all else, and for functions that
    are made from templates."""
    start = _IN_FUNCTION.match(name)
    if start is None:
        return ""
    at = start.end()
    function, at = _identifiers(name, at + (name[at : at + 1] == "N"))
    is_nested = name[start.end() : start.end() + 1] == "N"
    if not function or name[at : at + 1] == "I" or (is_nested and name[at : at + 1] != "E"):
        return ""
    variable = _AT_THE_END.search(name, at + is_nested)
    while variable is not None and int(variable[1]) != len(variable[2]):
        variable = _AT_THE_END.search(name, variable.start() + 1)
    return f"{start[0]} {function} {variable[0]}" if variable is not None else ""


def _identifiers(name: str, at: int) -> tuple[str, int]:
    """The source names (5.1.5.2) that follow, and where they end."""
    start = at
    while (found := _LENGTH.match(name, at)) is not None:
        at = found.end() + int(found[1])
    return _MARK.sub("", name[start:at]), at


def _by_meaning(graph: LinkGraph, rows: list[int], called: Callable[[str], str]) -> dict[tuple[str, bool], list[int]]:
    """Functions and variables, apart, by what they are called; what is called nothing is left out."""
    found: dict[tuple[str, bool], list[int]] = {}
    for row in rows:
        name = graph.symbols.name[row]
        key = called(name) if name else ""
        if key:
            is_code = graph.blocks.kind[graph.symbols.block[row]] == BlockKind.CODE
            found.setdefault((key, bool(is_code)), []).append(row)
    return found
