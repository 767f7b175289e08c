"""Lambda expressions of one function that take the same, of which an edit may have exchanged two.

Compilers call them by numbers (`UliE_`, `UliE0_`; clang's `$_0`, `$_1`), in the order of the source. What was made of
one goes on by its number, so each must be most like the one that had it: else all of them that changed are others now,
as it is where a function has another number of them (`stages.closures`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.branches import masked_code
from ipbp.stages.code_words import CodeWords, likeness

_TAG = r"E(?:N[KOR]*)?(Ul.*?E\d*_|\d+\$_\d+)"
_NUMBER = re.compile(r"(?:(?<=E)\d*|(?<=\$_)\d+)_?\Z")
_NUMBERS = re.compile(r"(Ul.*?E)\d*_|\d+\$_\d+")

_Functions = Mapping[str, tuple[str, ...]]
"""Tag of a closure -> names of the functions that were made for it."""


def exchanged_closures(old: LinkGraph, new: LinkGraph, ways: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Of functions that have such expressions the names of the new functions that are others now. `ways`: of each such
    function how its own name is spelled in theirs, as a regular expression."""
    found = {}
    sides = tuple(_Side(graph) for graph in (old, new))
    for owner, way in ways.items():
        pattern = re.compile(way + _TAG)
        before, after = (side.by_tag(pattern) for side in sides)
        names = [name for tags in _alike(after) for name in _doubtful(tags, before, after, sides)]
        if names:
            found[owner] = tuple(names)
    return found


def _alike(functions: _Functions) -> Iterable[list[str]]:
    """Tags that differ in their number only, where there are several."""
    groups: dict[str, list[str]] = {}
    for tag in functions:
        groups.setdefault(_NUMBER.sub("", tag), []).append(tag)
    return [tags for tags in groups.values() if len(tags) > 1]


def _doubtful(tags: list[str], before: _Functions, after: _Functions, sides: tuple[_Side, ...]) -> Iterable[str]:
    old, new = sides
    edited = [tag for tag in tags if tag in before and old.code(before[tag]) != new.code(after[tag])]
    if len(edited) < 2:
        return
    one, other = ({tag: side.words(names[tag]) for tag in edited} for side, names in ((old, before), (new, after)))
    own = {tag: likeness(one[tag], other[tag]) for tag in edited}
    if any(
        max(likeness(one[twin], other[tag]), likeness(one[tag], other[twin])) >= own[tag]
        for tag in edited
        for twin in edited
        if twin != tag
    ):
        for tag in edited:
            yield from after[tag]


class _Side:
    """The functions of one graph that were made for closures."""

    def __init__(self, graph: LinkGraph) -> None:
        self._graph = graph
        symbols = graph.symbols
        rows = sorted({row for mark in (b"Ul", b"$_") for row in symbols.name.containing(mark).tolist()})
        self._block = {
            symbols.name[row]: int(symbols.block[row])
            for row in rows
            if symbols.block[row] >= 0 and graph.blocks.kind[symbols.block[row]] == BlockKind.CODE
        }
        self._words = CodeWords(graph, {name: _plain(name) for name in self._block})

    def by_tag(self, pattern: re.Pattern[str]) -> _Functions:
        found: dict[str, list[str]] = {}
        for name in self._block:
            match = pattern.search(name)
            if match is not None:
                found.setdefault(match[1], []).append(name)
        return {tag: tuple(sorted(names, key=_plain)) for tag, names in found.items()}

    def code(self, names: Iterable[str]) -> list[object]:
        """Equal for functions that are the same at a glance."""
        graph = self._graph
        found: list[object] = []
        for name in names:
            block = self._block[name]
            rows = graph.edges_of(block)
            targets = [_plain(graph.symbols.name[target]) for target in graph.edges.target[rows].tolist()]
            found.append((_plain(name), bytes(masked_code(graph, block)), targets, graph.edges.addend[rows].tolist()))
        return found

    def words(self, names: Iterable[str]) -> list[str]:
        return [word for name in names for _, word in self._words.of_block(self._block[name])]


def _plain(name: str) -> str:
    return _NUMBERS.sub(lambda match: match[1] or "$_", name)
