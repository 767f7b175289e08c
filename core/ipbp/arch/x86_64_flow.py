"""x86-64: what each instruction takes and gives (`arch.flow`). The frame is reached from rbp."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ipbp.arch.flow import Flow, Step, kept_places
from ipbp.arch.x86_64_effects import CLOBBERED, Effect, effects, wholes_of
from ipbp.graph.edges import EdgeKind

NEAR_JUMP_SIZE = 5
_NO_CALL = bytes.fromhex("0f1f440000")  # nopl 0(%rax,%rax,1), as long as a call
_SAVED: frozenset[str | int] = frozenset({"rbx", "r12", "r13", "r14", "r15"})  # psABI, 3.2.1
_CALL, _JUMP = 0xE8, 0xE9  # call, jmp <end of it + 4 bytes>
_KEEPS = re.compile(r"mov dword ptr \[rbp - \w+\], e[ds]i")
_FRAME = frozenset({"rsp", "rbp", "rip"})


def steps(code: bytes) -> list[Step] | None:
    """The instructions in order; None where not all can be decoded."""
    found = effects(code)
    return None if found is None else [_step(row) for row in found]


def _asking(rows: Sequence[Step], code: bytes) -> set[int]:
    """A comparison with memory, and the jumps behind it."""
    slots = kept_places(rows)
    found: set[int] = set()
    asks = False
    for step in rows:
        asks = bool(slots & (step.takes | step.gives)) or (asks and step.target >= 0)
        if asks:
            found.add(step.offset)
    return found


def _without_call(code: bytes, kind: EdgeKind, field: int) -> bytes | None:
    start = field - 1
    if kind != EdgeKind.BRANCH32 or code[start] != _CALL:
        return None
    return code[:start] + _NO_CALL + code[start + len(_NO_CALL) :]


def _jump(source: int, target: int) -> bytes:
    return bytes([_JUMP]) + (target - source - NEAR_JUMP_SIZE).to_bytes(4, "little", signed=True)


def _step(row: Effect) -> Step:
    end = row.offset + row.size
    writes = wholes_of(row.writes)
    clobbered = wholes_of(CLOBBERED) if row.is_call else frozenset()
    frame = [access for access in row.accesses if access.base == "rbp"]
    return Step(
        row.offset,
        row.size,
        frozenset[str | int](wholes_of(row.reads) - _FRAME).union(a.displacement for a in frame if a.reads),
        frozenset[str | int]((writes | clobbered) - _FRAME).union(
            a.displacement for a in frame if a.writes or a.is_address
        ),
        next((target for target in row.successors if target != end), -1),
        end not in row.successors,
        row.is_call,
        _KEEPS.fullmatch(row.text) is not None,
        not row.is_call and not writes.isdisjoint({"rsp", "rbp"}),
        row.is_indirect,
    )


FLOW = Flow(
    steps=steps,
    asking=_asking,
    without_call=_without_call,
    jump=_jump,
    jump_size=NEAR_JUMP_SIZE,
    saved=_SAVED,
)
