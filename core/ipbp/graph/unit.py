"""One translation unit of a patch: its new graph, what of it is carried over, and what runs already.

`select` makes units, `resolve` fills in the addresses of what other objects define, and from `layout` on they are
only read. Several units make one patch; an undefined symbol of one may be a carried global of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ipbp.graph.model import I32, I64, LinkGraph
from ipbp.graph.threads import NOT_SHOWN, ShownThreads, ThreadPlace

UNBOUND = -1
"""In `Unit.address`: nothing in the process has this name yet (new, or not resolved)."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A pointer in a running table of virtual functions that leads to another function now: the load address of the
    slot, what it is to hold (a symbol of the unit's graph and an addend), the name of the table."""

    address: int
    symbol: int
    addend: int
    table: str


@dataclass(frozen=True, slots=True)
class Unit:
    """`carried`: blocks that get memory of their own, ascending. `address`: for each symbol of the graph the load
    address of what runs under it, or UNBOUND; for a carried function that existed before it is its old entry, which
    stays its address, and only edges into its interior mean the carried copy. `resolver`: for each symbol the load
    address of an indirect function's resolver whose result is not known yet, or UNBOUND. `got_base`: load address of
    what the image calls _GLOBAL_OFFSET_TABLE_, or UNBOUND where it has no such table. `thread`: where each
    thread has the thread-local variables that carried code uses, by symbol; new ones are not among them.

    `image`: key of the loaded image that it is a part of. `giver`: of a name that this patch brings into the process,
    key of the image whose unit has it, where that is another image than the unit's own. `straight`: names that the
    unit exports and that the linker bound to it all the same. `shown`: for debuggers, where its thread-local variables
    are. `slots`: of running tables of virtual functions.
    """

    name: str
    graph: LinkGraph
    carried: I32
    address: I64
    resolver: I64
    got_base: int = UNBOUND
    thread: Mapping[int, ThreadPlace] = field(default_factory=dict)
    image: str = ""
    giver: Mapping[str, str] = field(default_factory=dict)
    straight: frozenset[str] = frozenset()
    shown: ShownThreads = NOT_SHOWN
    slots: tuple[Slot, ...] = ()
