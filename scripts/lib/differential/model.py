"""What a random program is made of, in any language: functions of a few files, their variables, and what they share.

The texts inside (statements, definitions) are of one language; the edits in `edits` move them, drop them, or change
a literal or an operator in them, and ask the `Language` for new ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol


@dataclass
class Variable:
    """State. What `kind`, `type`, `size` and `value` mean is the language's business."""

    name: str
    kind: str
    type: str
    size: int
    value: int
    is_static: bool = True


@dataclass
class Function:
    """`rank`: functions call those of a higher rank only. `extra`: the value that callers pass as one more argument,
    None where it takes none."""

    name: str
    file: int
    is_static: bool
    attributes: str
    is_leaf: bool
    rank: float
    variables: list[Variable] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    extra: int | None = None


@dataclass
class Program:
    """`variables`, `constants` (definitions of read-only tables): by file. `shared`: definitions that all files see."""

    functions: list[Function]
    variables: list[list[Variable]]
    constants: list[list[str]]
    shared: list[str]
    next_number: int = 0
    shape: list[str] = field(default_factory=list)

    def leaves(self, file: int) -> list[str]:
        """Functions without calls that this file may name."""
        return [f.name for f in self.functions if f.is_leaf and (f.file == file or not f.is_static)]

    def number(self) -> int:
        self.next_number += 1
        return self.next_number


Edit = Callable[[Random, Program], str]
"""Changes the program; what was done in words, "" when nothing could be."""


class Generator(Protocol):
    """Makes programs and edits of them."""

    can_pause: bool
    """Whether the program knows `pause N`: wait at the N-th thing that it prints, until it is told `go`."""

    def generate(self, rng: Random) -> Program: ...

    def edit(self, rng: Random, program: Program) -> tuple[Program, list[str]]:
        """An edited copy, and what was done in words. `program` stays as it is."""

    def render(self, program: Program) -> dict[str, str]:
        """File name -> text."""


class Language(Protocol):
    """What `edits` need of a generator of programs in one language."""

    files: Sequence[str]
    local_names: Sequence[str]
    literal: re.Pattern[str]
    """A literal in `Program.shared`."""
    constant_in_code: re.Pattern[str]
    """A literal in a statement that may become any other from 1 to 99."""
    operator: re.Pattern[str]
    """An operator in a statement, with its blanks, that may become another of `operators`."""
    operators: str
    fixed: re.Pattern[str]
    """Statements in which neither may change."""

    @property
    def own_edits(self) -> Sequence[tuple[str, Edit]]: ...

    def function(self, rng: Random, name: str, is_leaf: bool, rank: float) -> Function: ...

    def variable(self, rng: Random, name: str, is_local: bool) -> Variable: ...

    def use(self, rng: Random, variable: Variable, expression: str) -> str:
        """A statement that reads or changes it."""

    def expression(self, rng: Random, program: Program, function: Function) -> str: ...

    def statement(self, rng: Random, program: Program, function: Function) -> str: ...

    def constant(self, rng: Random, program: Program, file: int, name: str) -> str: ...

    def number(self, value: int) -> str:
        """As a literal."""

    def may_move(self, program: Program, function: Function, file: int) -> bool:
        """Whether a global function that names nothing of its file's may be in this one."""
