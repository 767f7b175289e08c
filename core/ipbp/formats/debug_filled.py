"""Debug sections of an object as a linker would write them, as far as they refer to each other."""

from __future__ import annotations

import numpy as np

from ipbp.arch.fields import write_fields
from ipbp.graph.model import SIDE_BASE, LinkGraph, SideSection


def filled(graph: LinkGraph, section: SideSection) -> bytes:
    """The section with its references to other debug sections filled in; addresses stay as they are."""
    if len(section.offset) == 0:
        return bytes(section.content)
    rows = np.flatnonzero(graph.symbols.block[section.target] <= SIDE_BASE)
    value = graph.symbols.offset[section.target[rows]] + section.addend[rows]
    octets = np.frombuffer(section.content, dtype=np.uint8)
    return write_fields(octets, section.offset[rows], section.kind[rows], value).tobytes()
