"""What several objects define by right: members of COMDAT groups that others can see.

An inline function, an instance of a template, a variable of either, a table of virtual functions: every object that
needs one has it, and a linker keeps the first (gABI, "Section Groups"; Itanium C++ ABI, 5.2).
"""

from __future__ import annotations

import numpy as np

from ipbp.graph.columns import Flags
from ipbp.graph.model import Binding, LinkGraph


def is_linkonce(graph: LinkGraph) -> Flags:
    """For each symbol of the graph whether it is such a definition."""
    symbols = graph.symbols
    grouped = np.concatenate([graph.sections.group.are_given(), [False]])
    section = np.concatenate([graph.blocks.section, [len(graph.sections)]]).astype(np.int64)
    home = np.where(symbols.block >= 0, symbols.block, len(graph.blocks))
    found: Flags = grouped[section[home]] & (symbols.binding != Binding.LOCAL)
    return found
