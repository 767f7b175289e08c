"""Units whose debug information is in two halves: one in the program, the other in a `.dwo` file or a package of them.

Sources: DWARF 5, 3.1.2 and 3.1.3; for version 4 GNU's extension of the same idea (gcc.gnu.org/wiki/DebugFission).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The half in the program. `identity`: the number that both have. `name`: of the `.dwo` file, from `directory`.
    `program`: offset of the line table in .debug_line; `addresses`: of the unit's own in .debug_addr."""

    identity: int
    directory: str
    name: str
    program: int
    addresses: int


Split = Callable[[Skeleton], Mapping[str, bytes] | None]
"""The sections of the other half, by their names without `.dwo`, or None when it is not there."""


def no_split(skeleton: Skeleton) -> None:
    """Nothing is known of other halves."""
