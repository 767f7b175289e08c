"""Addresses that an object without -fdata-sections leaves in doubt.

When several static variables share one `.bss`, an object says "`.bss` plus 40" for the end of one array and for the
start of the next variable alike, and `array[i - 1]` may start counting inside the variable before. While they stay
together that makes no difference. Bound one by one to the running process it does, so such an address in code that
is carried over is refused rather than guessed. Objects that ipbp builds have a section for each variable.
"""

from __future__ import annotations

import numpy as np

from ipbp.arch.machines import machine_of
from ipbp.errors import Refusal
from ipbp.graph.model import I32, I64, Binding, BlockKind, LinkGraph


def doubtful_addresses(new: LinkGraph, carried: I32) -> tuple[Refusal, ...]:
    """A refusal for each carried function that takes the address of a static variable which shares its section.

    `carried`: blocks of `new`. Reading or writing a variable in place is never in doubt, nor is a global name.
    """
    doubtful = _sharing_variables(new)
    refusals = []
    for block in carried.tolist():
        if new.blocks.kind[block] != BlockKind.CODE:
            continue
        targets = new.symbols.block[new.edges.target[_address_rows(new, block)]]
        found = np.unique(targets[(targets >= 0) & doubtful[np.maximum(targets, 0)]])
        if len(found):
            names = ", ".join(f"'{new.block_name(int(target))}'" for target in found)
            refusals.append(_refusal(new, block, names))
    return tuple(refusals)


def _sharing_variables(graph: LinkGraph) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """For each block whether it is a static variable with neighbours in its section."""
    blocks = graph.blocks
    is_data = (blocks.kind != BlockKind.CODE) & ~blocks.mergeable
    count = np.bincount(blocks.section[is_data], minlength=len(graph.sections) + 1)
    local = graph.symbols.binding[blocks.anchor] == Binding.LOCAL
    named = graph.symbols.name.take(blocks.anchor).are_given()
    return np.asarray(is_data & local & named & (count[blocks.section] > 1))


def _address_rows(graph: LinkGraph, block: int) -> I64:
    """Rows of the block's edges that are addresses, and not used right there."""
    rows = graph.edges_of(block)
    kind, offset = graph.edges.kind[rows], graph.edges.offset[rows]
    octets = np.frombuffer(graph.content(block), np.uint8)
    taken = machine_of(graph.machine).takes_address(octets, kind, offset)
    wanted: I64 = rows.start + np.flatnonzero(taken)
    return wanted


def _refusal(graph: LinkGraph, block: int, names: str) -> Refusal:
    name = graph.block_name(block)
    return Refusal(
        "object-shares-sections",
        f"'{name}' takes the address of {names}, which shares a section with other variables, so that the end of one "
        "and the start of the next cannot be told apart",
        "Build the new object with -fdata-sections.",
        name,
        graph.path,
    )
