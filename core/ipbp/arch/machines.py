"""What the stages need to know of a machine: one value for each, chosen by the name that a graph or image has.

A stage asks for what it needs (`machine_of(graph.machine).is_padding`) and names no machine. What only one machine can
do so far is None for the others, and who needs it refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.arch import (
    aarch64_catcher,
    aarch64_code,
    aarch64_entry,
    aarch64_flow,
    aarch64_listing,
    aarch64_references,
    aarch64_relax,
    aarch64_tls,
    x86_64_aligned,
    x86_64_catcher,
    x86_64_clobbers,
    x86_64_code,
    x86_64_entry,
    x86_64_flow,
    x86_64_listing,
    x86_64_references,
    x86_64_relax,
    x86_64_tls,
)
from ipbp.arch.catcher import CatcherCode
from ipbp.arch.entry import OldEntry
from ipbp.arch.flow import Flow
from ipbp.arch.forms import Fields, Filled
from ipbp.arch.instructions import CodeReference, Instruction, LocalField, Told
from ipbp.arch.rewriting import Rewriting
from ipbp.errors import Refusal
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, U8

X86_64, AARCH64 = "x86_64", "aarch64"
_REACH = (1 << 31) - (64 << 10)


@dataclass(frozen=True, slots=True)
class EntryCode:
    """The jump over an old function's entry.

    `place`: its address, for an entry and the first bytes of the old function; behind the instruction that indirect
    calls must land on. `jump(place, target, before)`: its bytes; `before`: what stands there now. `again(place, target,
    written)`: the same over a jump that is there, of its size, or None. `check(entry, size)`: refusals. `size`: of the
    longest, with the landing. `reach`: how far a jump of the shortest kind leads. `relays`: where there is no room, a
    shorter jump may lead to one in padding.
    """

    place: Callable[[int, bytes], int]
    jump: Callable[[int, int, bytes], bytes]
    again: Callable[[int, int, bytes], bytes | None]
    check: Callable[[OldEntry, int], tuple[Refusal, ...]]
    size: int
    reach: int
    relays: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """`from_end`: per edge kind, how many bytes behind its field in code a distance counts from. `trap`: what stands
    between functions. `follows_flow`: whether what follows the flow of code (frames that move, thread-local
    variables that are made beside others, coroutines that wait) is known for it. `references`: those of linked code
    (`code_references`); `told_references`: those of an object, where a compiler counts on from what its fixups name, or
    None. The rest is what the functions of the same name in `arch` say."""

    name: str
    title: str
    from_end: U8
    is_padding: Callable[[bytes], bool]
    instructions: Callable[[bytes], list[Instruction]]
    displacement_width: Callable[[bytes], int]
    local_fields: Callable[[bytes], list[LocalField]]
    references: Callable[[bytes, int, int], list[CodeReference]]
    told_references: Callable[[bytes, int, Told], list[CodeReference]] | None
    reaches_threads: Callable[[bytes], bool]
    branch_targets: Callable[[bytes], list[int]]
    possible_branches: Callable[[U8], tuple[I64, I64]]
    takes_address: Callable[[U8, U8, I64], npt.NDArray[np.bool_]]
    stored_places: Callable[[bytes], list[tuple[int, int]]]
    changed_registers: Callable[[bytes], tuple[int, bool]]
    aligned_operands: Callable[[bytes], list[tuple[int, int, bool]]]
    read_fields: Callable[[Filled], Fields]
    local_exec: Callable[[int, bytes, int], Sequence[Rewriting]]
    stub: Callable[[int, int], bytes]
    stub_size: int
    trap: bytes
    entry: EntryCode
    listing: Callable[[bytes, int, Callable[[int, int], str]], list[tuple[int, str]]]
    catcher: CatcherCode
    flow: Flow
    follows_flow: bool


def machine_of(name: str) -> Machine:
    """The machine that a graph or an image is for. Errors: KeyError for one that no reader makes graphs of."""
    return _MACHINES[name]


def _from_end() -> U8:
    # On x86-64 a distance counts from the end of its instruction, mostly that of the field (SDM vol. 1, 3.7.5.1).
    column = np.full(max(EdgeKind) + 1, 4, dtype=np.uint8)
    column[[EdgeKind.ABS64, EdgeKind.ABS32, EdgeKind.ABS32S, EdgeKind.ABS16, EdgeKind.ABS8]] = 0
    column[[EdgeKind.GOT_OFFSET64, EdgeKind.PLT_OFFSET64, EdgeKind.IMAGE32]] = 0
    column[EdgeKind.PCREL8] = 1
    return column


def _x86_takes_address(octets: U8, kind: U8, fields: I64) -> npt.NDArray[np.bool_]:
    lea = x86_64_code.takes_address(octets, fields) & (kind == EdgeKind.PCREL32)
    result: npt.NDArray[np.bool_] = lea
    absolute = np.isin(kind, (EdgeKind.ABS32, EdgeKind.ABS32S, EdgeKind.ABS64, EdgeKind.GOT_OFFSET64))
    result |= absolute & ~x86_64_code.is_plain_absolute(octets, fields)
    return result


_MACHINES = {
    X86_64: Machine(
        name=X86_64,
        title="x86-64",
        from_end=_from_end(),
        is_padding=x86_64_code.is_padding,
        instructions=x86_64_code.instructions,
        displacement_width=x86_64_code.displacement_width,
        local_fields=x86_64_code.local_fields,
        references=lambda code, start, results: x86_64_references.code_references(code, start),
        told_references=None,
        reaches_threads=x86_64_references.reaches_threads,
        branch_targets=x86_64_code.branch_targets,
        possible_branches=x86_64_code.possible_branches,
        takes_address=_x86_takes_address,
        stored_places=x86_64_code.stored_places,
        changed_registers=x86_64_clobbers.changed_registers,
        aligned_operands=x86_64_aligned.aligned_operands,
        read_fields=x86_64_relax.read_fields,
        local_exec=x86_64_tls.local_exec,
        stub=x86_64_entry.stub,
        stub_size=x86_64_entry.STUB_SIZE,
        trap=b"\xcc",
        entry=EntryCode(
            place=x86_64_entry.jump_place,
            jump=lambda place, target, before: x86_64_entry.jump(place, target),
            again=lambda place, target, written: x86_64_entry.jump(place, target),
            check=x86_64_entry.check_entry,
            size=len(x86_64_entry.ENDBR64) + x86_64_entry.JUMP_SIZE,
            reach=_REACH,
            relays=True,
        ),
        listing=x86_64_listing.listing,
        catcher=x86_64_catcher.CATCHER_CODE,
        flow=x86_64_flow.FLOW,
        follows_flow=True,
    ),
    AARCH64: Machine(
        name=AARCH64,
        title="AArch64",
        from_end=np.zeros(max(EdgeKind) + 1, dtype=np.uint8),
        is_padding=aarch64_code.is_padding,
        instructions=aarch64_code.instructions,
        displacement_width=aarch64_code.displacement_width,
        local_fields=aarch64_code.local_fields,
        references=aarch64_references.code_references,
        told_references=aarch64_references.told_references,
        reaches_threads=aarch64_references.reaches_threads,
        branch_targets=aarch64_code.branch_targets,
        possible_branches=aarch64_code.possible_branches,
        takes_address=aarch64_code.takes_address,
        stored_places=aarch64_code.stored_places,
        changed_registers=aarch64_code.changed_registers,
        aligned_operands=lambda code: [],  # Arm Architecture Reference Manual, "Unaligned data access"
        read_fields=aarch64_relax.read_fields,
        local_exec=aarch64_tls.local_exec,
        stub=aarch64_entry.stub,
        stub_size=aarch64_entry.STUB_SIZE,
        trap=aarch64_code.BRK.to_bytes(4, "little"),
        entry=EntryCode(
            place=aarch64_entry.jump_place,
            jump=aarch64_entry.jump,
            again=aarch64_entry.jump_again,
            check=aarch64_entry.check_entry,
            size=aarch64_entry.LONGEST,
            reach=aarch64_entry.BRANCH_REACH,
            relays=False,
        ),
        listing=aarch64_listing.listing,
        catcher=aarch64_catcher.CATCHER_CODE,
        flow=aarch64_flow.FLOW,
        follows_flow=False,
    ),
}
