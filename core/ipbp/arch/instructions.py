"""What readers of machine code tell of it, whatever the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ipbp.graph.edges import EdgeKind

EVERYTHING = -1
"""All registers: what a call of unknown code changes."""


class Instruction(NamedTuple):
    offset: int
    size: int
    mnemonic: str
    operands: str


@dataclass(frozen=True, slots=True)
class LocalField:
    """A distance in an instruction for which the assembler needed no fixup. `field`: its offset; `target`: the offset
    in the code, or outside of it, that it means."""

    field: int
    kind: EdgeKind
    target: int
