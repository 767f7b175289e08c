"""Functions that run before main or at exit, in an edit of a program that has started.

The arrays of such functions (gABI, "Initialization and Termination Functions") were read by the loader long ago. A
function that is new in one would never run, and what it initialises would stay zero: that is refused. One that ran
already and changed is patched as any other, and said: it does not run again. What runs at exit is yet to run, with
its new code.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

from ipbp.errors import Refusal
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import I64, U8, BlockKind, LinkGraph
from ipbp.graph.unit import UNBOUND
from ipbp.stages.compare import Status

_DATA = (BlockKind.DATA, BlockKind.BSS)
_AT_EXIT = (".fini", ".dtors")
_INITIALISES = re.compile(r"__static_initialization_and_destruction_0|__cxx_global_var_init|_GLOBAL__sub_")
"""Functions that compilers make for the initialisers of variables; the last are called by the arrays."""


def registered(image: LoadedImage, read: MemoryReader) -> frozenset[int]:
    """Load addresses of the image's functions that run before main or at exit."""
    ranges = [(part.start, (part.end - part.start) & ~7) for part in image.parts if part.kind == BlockKind.INIT]
    contents = read([row for row in ranges if row[1]]) if ranges else []
    words = [np.frombuffer(content, np.uint64).tolist() for content in contents if content]
    return frozenset(word for row in words for word in row)


def judge_initialisers(
    graph: LinkGraph, status: U8, address: I64, known: Collection[int], file: str
) -> tuple[list[Refusal], list[str]]:
    """`new-initialiser` for each function that would have to run and does not, and notes about those that ran.
    `status`: of each block; `address`: where each symbol runs, UNBOUND if nowhere; `known`: see `registered`."""
    refusals, notes = [], []
    edges = graph.edges
    rows = np.flatnonzero((graph.blocks.kind[edges.block] == BlockKind.INIT) & (graph.symbols.block[edges.target] >= 0))
    for row in rows.tolist():
        block = int(graph.symbols.block[edges.target[row]])
        anchor = int(graph.blocks.anchor[block])
        name = graph.symbols.name[anchor]
        section = graph.sections[int(graph.blocks.section[edges.block[row]])].name
        if address[anchor] == UNBOUND or int(address[anchor]) not in known:
            refusals.append(_new(name, file))
            continue
        if section.startswith(_AT_EXIT):
            continue
        parts = _with_initialisers(graph, block)
        changed = [part for part in parts if status[part] != Status.SAME]
        variables = _new_variables(graph, changed, status)
        refusals += [_not_initialised(variable, name, file) for variable in variables]
        if changed and not variables:
            notes.append(f"'{name}' ran before main and does not run again: its edit has no effect in this process")
    return refusals, notes


def _with_initialisers(graph: LinkGraph, block: int) -> list[int]:
    """A function, and the compiler's own that it calls to initialise variables."""
    found, waiting = [], [block]
    while waiting:
        here = waiting.pop()
        found.append(here)
        for symbol in np.unique(graph.edges.target[graph.edges_of(here)]).tolist():
            target = int(graph.symbols.block[symbol])
            if target >= 0 and target not in found and _INITIALISES.match(graph.block_name(target)):
                waiting.append(target)
    return found


def _new_variables(graph: LinkGraph, blocks: list[int], status: U8) -> list[str]:
    rows = [graph.edges.target[graph.edges_of(block)] for block in blocks]
    homes = np.unique(graph.symbols.block[np.concatenate(rows)]) if rows else np.empty(0, np.int32)
    homes = homes[homes >= 0]
    new = homes[np.isin(graph.blocks.kind[homes], _DATA) & (status[homes] == Status.NEW)]
    return [name for name in (graph.symbols.name[int(graph.blocks.anchor[home])] for home in new.tolist()) if name]


def _new(name: str, file: str) -> Refusal:
    return Refusal(
        "new-initialiser",
        f"'{name}' runs before main or at exit, and the program has started without it",
        "Call the new initialisation from code that runs again, or restart the program.",
        name,
        file,
    )


def _not_initialised(variable: str, function: str, file: str) -> Refusal:
    return Refusal(
        "new-initialiser",
        f"the new variable '{variable}' gets its value in '{function}', which ran before main and does not run again",
        "Give it a constant value, or set it in code that runs again, or restart the program.",
        variable,
        file,
    )
