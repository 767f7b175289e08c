"""C++: new static variables that may be those of a function which went to another file.

A function that other files call is one function, wherever it stands, and takes its variables along (`stages.moved`).
One that only its own file sees, or an inline one, may have stood in both files, with variables of its own in each. So
where one file has lost a variable and another has a new one that is called alike, it is not certain that they are one,
and a new one would begin with its first value unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.cxx_names import function_path, local_name, plain_variable
from ipbp.stages.select import DATA_KINDS


@dataclass(frozen=True, slots=True)
class Definitions:
    """Names of `functions` and of `variables` that hold state."""

    functions: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()


def definitions(graph: LinkGraph, blocks: Iterable[int]) -> Definitions:
    """What these blocks are."""
    functions, variables = [], []
    for block in blocks:
        kind = graph.blocks.kind[block]
        if kind == BlockKind.CODE:
            functions.append(graph.block_name(block))
        elif kind in DATA_KINDS:
            variables.append(graph.block_name(block))
    return Definitions(tuple(functions), tuple(variables))


def begun_anew(lost: Definitions, fresh: Definitions) -> Iterator[tuple[str, str]]:
    """(new variable, the one that it may be): variables of functions that are called alike, and others when a function
    that is called alike came with them."""
    if not lost.variables or not fresh.variables:
        return
    before = {key: name for name in lost.variables if (key := _key(name))}
    pairs = [(name, before[key]) for name in fresh.variables if (key := _key(name)) in before]
    others = [pair for pair in pairs if local_name(pair[0]) is None]
    yield from (pair for pair in pairs if pair not in others)
    if others and not _paths(lost).isdisjoint(_paths(fresh)):
        yield from others


def _key(name: str) -> str:
    local = local_name(name)
    if local is not None and local.is_guard:
        return ""
    return plain_variable(name)


def _paths(found: Definitions) -> set[str]:
    return {path for name in found.functions if (path := function_path(name))}
