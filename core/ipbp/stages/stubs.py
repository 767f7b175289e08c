"""Slots and stubs: how code that is near the program reaches what is far or not yet known.

The C library is usually more than 2 GiB away from a program, so a call cannot go there directly: it goes to a stub,
an indirect jump through a pointer cell (psABI, "Procedure Linkage Table", without the lazy binding). Code that was
compiled to read an address from a cell (GOTPCREL) gets its cell here, too. An indirect function whose choice is not
known yet has a cell that the plugin fills with its resolver's result; its stub stands for it everywhere.

What no stub can help is refused by name: data out of reach, thread-local variables, names that nothing defines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.arch.machines import machine_of
from ipbp.errors import Refusal
from ipbp.graph.edges import EdgeKind
from ipbp.graph.layout import Slot, Stub, ThreadImage
from ipbp.graph.model import COMMON, I64, UNDEFINED
from ipbp.graph.rows import is_one_of
from ipbp.graph.threads import ThreadPlace
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.arena import LOW_END, REACH, Arena
from ipbp.stages.far_data import OUT_OF_REACH
from ipbp.stages.got_base import IMAGE_NAME, counts_from_image
from ipbp.stages.placer import Placer
from ipbp.stages.targets import BRANCHES, GOT_KINDS, CarriedEdges
from ipbp.stages.thread_locals import OFFSET_KINDS, THREAD_LOCAL
from ipbp.stages.thread_pairs import ASKING_KINDS, BLOCK_KINDS, DESCRIPTOR_KINDS, PAIR_KINDS

SLOT_SIZE = 8
_NEAR = (EdgeKind.PCREL32, EdgeKind.PCREL16, EdgeKind.PCREL8, EdgeKind.PAGE21)
_LOW = (EdgeKind.ABS32S, EdgeKind.ABS16, EdgeKind.ABS8)
_PARTS = tuple(kind for kind in EdgeKind if EdgeKind.BRANCH19 <= kind <= EdgeKind.MOVE_DISTANCE_G3)
"""Parts of instructions that hold an address or a distance; `relocate` sees whether it is too large."""
_FAR = (EdgeKind.ABS64, EdgeKind.PCREL64, EdgeKind.GOT_OFFSET64, EdgeKind.PLT_OFFSET64, EdgeKind.IMAGE32)
_ADDRESSES = (*_NEAR, *_LOW, EdgeKind.ABS32, EdgeKind.WORD32, *_PARTS, *_FAR)
_OF_THREADS = (*THREAD_LOCAL, *OFFSET_KINDS, *ASKING_KINDS)
_SIZES = (EdgeKind.SIZE32, EdgeKind.SIZE64)
_NOWHERE = ThreadPlace(None)


@dataclass(frozen=True, slots=True)
class Reached:
    """Columns of one unit, a row a symbol: the address of its cell and of its stub, or UNBOUND."""

    slot: I64
    stub: I64


@dataclass(frozen=True, slots=True)
class UnitTargets:
    """What a unit's carried edges lead to. `meaning`: per symbol, `stages.targets.meanings`. `named`: rows of `edges`
    that go by it."""

    unit: Unit
    edges: CarriedEdges
    meaning: I64
    named: npt.NDArray[np.bool_]

    def of(self, kinds: Sequence[EdgeKind]) -> I64:
        """The symbols whose meanings edges of these kinds lead to, ascending."""
        return np.unique(self.edges.target[self.named & is_one_of(self.edges.kind, kinds)]).astype(np.int64)

    def is_unknown(self, symbols: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.asarray(self.meaning[symbols] == UNBOUND)

    def is_indirect(self, symbols: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.asarray(self.is_unknown(symbols) & (self.unit.resolver[symbols] != UNBOUND))

    def without_thread_place(self, thread: ThreadImage | None) -> list[int]:
        """Thread-local variables of which it is not known where a thread has them, nor will be when the patch is
        applied, and those that are reached in a way that was not made to use that."""
        if not is_one_of(self.edges.kind, _OF_THREADS).any():
            return []
        counted = self.of(OFFSET_KINDS)
        start, end = (thread.start, thread.start + thread.size) if thread else (0, 0)
        is_new = (self.meaning[counted] >= start) & (self.meaning[counted] < end)
        known = is_new | np.isin(counted, list(self.unit.thread))
        asked = self.of((*PAIR_KINDS, *BLOCK_KINDS))
        has_pair = np.array([self.unit.thread.get(row, _NOWHERE).module != 0 for row in asked.tolist()], dtype=np.bool_)
        undescribed = [
            row for row in self.of(DESCRIPTOR_KINDS).tolist() if not self.unit.thread.get(row, _NOWHERE).descriptor
        ]
        others = self.of([kind for kind in THREAD_LOCAL if kind not in (*OFFSET_KINDS, *ASKING_KINDS)])
        return sorted({*counted[~known].tolist(), *asked[~has_pair].tolist(), *undescribed, *others.tolist()})

    def far(self, symbols: I64, arena: Arena, reach: int = REACH) -> I64:
        """Those that such a distance does not lead to, and those that are not known yet."""
        near = [arena.reaches(address, reach) for address in self.meaning[symbols].tolist()]
        return symbols[~np.array(near, dtype=np.bool_) | self.is_unknown(symbols)]


def place_stubs(
    targets: Sequence[UnitTargets], arena: Arena, placer: Placer
) -> tuple[tuple[Reached, ...], tuple[Slot, ...], tuple[Stub, ...]]:
    """A cell for each target that needs one, shared by all units, and a stub for each that is called from afar."""
    slots: dict[tuple[int, int], Slot] = {}
    stubs: dict[tuple[int, int], Stub] = {}
    reached = []
    for row in targets:
        columns = Reached(*(np.full(len(row.meaning), UNBOUND, dtype=np.int64) for _ in range(2)))
        through_stub = _stub_targets(row, arena)
        for symbol in np.union1d(row.of(GOT_KINDS), through_stub).tolist():
            key = (int(row.meaning[symbol]), int(row.unit.resolver[symbol]))
            if key == (UNBOUND, UNBOUND):
                continue
            if key not in slots:
                slots[key] = Slot(_put_slot(key[0], placer), *key, row.unit.graph.symbols.name[symbol])
            columns.slot[symbol] = slots[key].address
        for symbol in through_stub[columns.slot[through_stub] != UNBOUND].tolist():
            key = (int(row.meaning[symbol]), int(row.unit.resolver[symbol]))
            if key not in stubs:
                size = machine_of(row.unit.graph.machine).stub_size
                address = placer.put(".stubs", size, size)
                stubs[key] = Stub(address, slots[key].address, slots[key].name)
            columns.stub[symbol] = stubs[key].address
        reached.append(columns)
    return tuple(reached), tuple(slots.values()), tuple(stubs.values())


def target_refusals(targets: Sequence[UnitTargets], arena: Arena, thread: ThreadImage | None = None) -> list[Refusal]:
    """`thread-local`, `size-of-outside-symbol`, `undefined-symbol`, `out-of-reach-data`: one for each unit and
    symbol."""
    found = []
    for row in targets:
        found += [_thread_local(row.unit, symbol) for symbol in row.without_thread_place(thread)]
        sized = row.of(_SIZES)
        outside = sized[is_one_of(row.unit.graph.symbols.block[sized], (UNDEFINED, COMMON))]
        found += [_size_unknown(row.unit, symbol) for symbol in outside.tolist()]
        used = row.of((*BRANCHES, *GOT_KINDS, *_ADDRESSES))
        unknown = row.is_unknown(used) & ~row.is_indirect(used)
        found += [_undefined(row.unit, shown(row.unit, symbol)) for symbol in used[unknown].tolist()]
        if row.unit.got_base == UNBOUND and counts_from_image(row.edges):
            found.append(_undefined(row.unit, IMAGE_NAME))
        near, low, zero_extended = row.far(row.of(_NEAR), arena), row.of(_LOW), row.of((EdgeKind.ABS32,))
        beyond = {
            *near[~row.is_unknown(near)].tolist(),
            *low[row.meaning[low] >= LOW_END].tolist(),
            *zero_extended[row.meaning[zero_extended] >= 2 * LOW_END].tolist(),
        }
        found += [_out_of_reach(row.unit, symbol) for symbol in sorted(beyond)]
    return found


def shown(unit: Unit, symbol: int) -> str:
    """The symbol's name for messages; the place of an unnamed one."""
    name, block = unit.graph.symbols.name[symbol], int(unit.graph.symbols.block[symbol])
    return name or (unit.graph.block_name(block) if block >= 0 else f"symbol {symbol}")


def _stub_targets(row: UnitTargets, arena: Arena) -> I64:
    addresses = row.of(_ADDRESSES)
    reach = machine_of(row.unit.graph.machine).entry.reach
    return np.union1d(row.far(row.of(BRANCHES), arena, reach), addresses[row.is_indirect(addresses)])


def _put_slot(value: int, placer: Placer) -> int:
    # A resolver's result is written by the plugin after the segments: that cell is in memory no segment covers.
    return placer.put(".bss" if value == UNBOUND else ".got", SLOT_SIZE, SLOT_SIZE)


def _thread_local(unit: Unit, symbol: int) -> Refusal:
    name = shown(unit, symbol)
    return Refusal(
        "thread-local",
        f"the changed code uses the thread-local variable '{name}', whose place in the threads is not known",
        "Move the code that uses it into a function of its own that does not change.",
        name,
        unit.name,
    )


def _size_unknown(unit: Unit, symbol: int) -> Refusal:
    name = shown(unit, symbol)
    return Refusal(
        "size-of-outside-symbol",
        f"the changed code asks for the size of '{name}' (R_X86_64_SIZE), which another file defines",
        "Ask for it in the file that defines it.",
        name,
        unit.name,
    )


def _undefined(unit: Unit, name: str) -> Refusal:
    return Refusal(
        "undefined-symbol",
        f"the changed code uses '{name}', and nothing in the process has this name",
        "Define it in a file that is patched, or load the library that has it.",
        name,
        unit.name,
    )


def _out_of_reach(unit: Unit, symbol: int) -> Refusal:
    name = shown(unit, symbol)
    return Refusal(
        OUT_OF_REACH,
        f"the changed code takes '{name}' by a 32-bit distance or address, and it is too far from the program",
        "Build this file with -fPIC (gcc 12: -mno-direct-extern-access), which reaches it by a pointer.",
        name,
        unit.name,
    )
