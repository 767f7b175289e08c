"""The types of a program as its debug information has them: where each part of a value lies.

Names are qualified (`market::Till`); generic arguments and what the compiler names itself (`{closure_env#0}`) are part
of them, as Rust and C++ write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True)
class DebugTypes:
    """`layouts`: by name; a name with several layouts has them all, for two things may have one name. `functions`:
    linkage name -> qualified name, with generic arguments. `variables`: linkage name -> (qualified name, name of the
    type)."""

    layouts: Mapping[str, frozenset[TypeLayout]]
    functions: Mapping[str, str]
    variables: Mapping[str, tuple[str, str]]
