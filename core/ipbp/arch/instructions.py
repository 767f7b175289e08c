"""What readers of machine code tell of it, whatever the machine."""

from __future__ import annotations

from collections.abc import Mapping
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


Told = Mapping[int, int | None]
"""Of an object, by the offset of a fixup the whole address that its instruction has a part of; None for one that is not
known. The instruction's own number means nothing there."""


@dataclass(frozen=True, slots=True)
class CodeReference:
    """A reference that linked code makes, where no relocation tells it. `field`: offset of the number in the code;
    `place`: the load address that it leads to; `kind`: of the edge that it is, `cell_kind`: when a pointer cell is
    there; `after`: bytes from the field to the instruction's end, where the number counts from that.

    `base`: the address that it is counted from, when that one is made by another instruction. `is_unsure`: what was
    found may not be meant, unless it is a part of the same thing as its base. `reached`: of an address that is only
    there to count from, the places that are used. `may_be_end`: all that is seen of the address is that it is compared
    with others.
    """

    field: int
    kind: EdgeKind
    place: int
    cell_kind: EdgeKind
    after: int = 0
    base: int | None = None
    is_unsure: bool = False
    reached: tuple[int, ...] = ()
    may_be_end: bool = False
