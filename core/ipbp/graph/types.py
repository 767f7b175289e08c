"""The types of a program as its debug information has them: where each part of a value lies.

Names are qualified (`market::Till`); generic arguments and what the compiler names itself (`{closure_env#0}`) are part
of them, as Rust and C++ write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Part:
    """A field (`offset` in bytes, `type` its type's name), or a variant or enumerator (`value` tells it apart).
    Parts of a variant are types of their own."""

    name: str
    offset: int
    type: str
    value: int | None = None


@dataclass(frozen=True, slots=True)
class TypeLayout:
    """`parts` by place, in whatever order the source has them."""

    size: int
    parts: tuple[Part, ...]


NOTHING = "() -> ()"
"""The signature of a function that takes and returns nothing, or of which no more is known."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Where the source of a coroutine (an async fn or block) waits, as one object says it. `object`: its number among
    those that were merged; `program`: offset of the unit's line table in .debug_line, `file`: number of the source in
    that. `line`: by the value of the state; 0 is where the body begins, 1 where it ends (rustc_middle,
    `ty::CoroutineArgs`: unresumed, returned, panicked, then each suspension)."""

    object: int
    program: int
    file: int
    line: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class DebugTypes:
    """`layouts`: by name; a name with several layouts has them all, for two things may have one name. `functions`:
    linkage name -> qualified name, with generic arguments. `variables`: linkage name -> (qualified name, name of the
    type). `signatures`: linkage name -> what the function takes and returns. `tables`: name of a table of methods
    (`<T as Trait>::{vtable}`) -> (symbol of the graph, distance from it). `waits`: by name of the coroutine's type, for
    each object that has it. `is_whole`: nothing of it is in files that are not there."""

    layouts: Mapping[str, frozenset[TypeLayout]]
    functions: Mapping[str, str]
    variables: Mapping[str, tuple[str, str]]
    signatures: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    waits: Mapping[str, tuple[Waits, ...]] = field(default_factory=dict)
    is_whole: bool = True

    @property
    def tells_types(self) -> bool:
        """Whether there is debug information, all of it, and of a level that has types (`debug = 2`)."""
        has_types = self.layouts or self.variables or any(taken != NOTHING for taken in self.signatures.values())
        return self.is_whole and bool(has_types)
