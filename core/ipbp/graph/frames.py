"""A function as a debugger knows it: its lines, how its frame is unwound and where its variables are.

All offsets count from the function's first byte. A place on the stack counts from the canonical frame address (CFA:
the stack pointer before the call pushed the return address; DWARF 5, 6.4), which is the same all through a call
however the compiler reaches it. Registers have their DWARF numbers (psABI, table "DWARF Register Number Mapping").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RBX, RBP, RSP, RETURN_ADDRESS = 3, 6, 7, 16
CALLEE_SAVED = (RBX, RBP, 12, 13, 14, 15)  # psABI, "Register Usage"
REGISTER_NAMES = (
    *("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13"),
    *("r14", "r15", "rip"),
)


@dataclass(frozen=True, slots=True)
class UnwindRow:
    """From `offset` to the next row the CFA is `base` + `distance`; `base` is -1 where an expression computes it.
    `saved`: register -> its place; `lost`: registers that cannot be recovered."""

    offset: int
    base: int
    distance: int
    saved: Mapping[int, int]
    lost: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class LineRow:
    """From `offset` on the code is of this line. `is_statement`: a good place to stop at."""

    offset: int
    file: str
    line: int
    is_statement: bool


@dataclass(frozen=True, slots=True)
class Variable:
    """`place`: on the stack, None where it is elsewhere or in several places. `type` in words. `scope`: half-open
    ranges in which its name means it. `is_indirect`: at its place is its address. `in_vector`: it is passed in a vector
    register if in one at all; None where the type alone does not tell."""

    name: str
    type: str
    size: int
    place: int | None
    scope: tuple[tuple[int, int], ...]
    is_parameter: bool = False
    is_indirect: bool = False
    in_vector: bool | None = None

    def is_visible_at(self, offset: int) -> bool:
        return any(start <= offset < end for start, end in self.scope)


@dataclass(frozen=True, slots=True)
class DescribedFunction:
    """`start`: load address, `code`: its bytes as they are there. `result`: the type of what it returns, `result_size`
    in bytes, 0 when that is not known. `keeps_variables`: each variable of its source has one place of its own in the
    frame, and no other function was inlined: what has no name there is of one expression."""

    name: str
    start: int
    code: bytes
    lines: Sequence[LineRow]
    unwind: Sequence[UnwindRow]
    variables: Sequence[Variable]
    result: str = "void"
    result_size: int = 0
    keeps_variables: bool = False

    @property
    def parameters(self) -> list[Variable]:
        return [row for row in self.variables if row.is_parameter]

    def unwind_at(self, offset: int) -> UnwindRow | None:
        """The row that holds there."""
        found = None
        for row in self.unwind:
            if row.offset <= offset:
                found = row
        return found
