"""What of a new object is carried into the process, and what is bound to what runs there already.

Roots are the functions that changed, the new ones that other objects can see (of a crate, whose other users are
all known, those that they use), and those that initialise variables in another way. From each root the edges are
followed: code that changed or is new comes along, so do unnamed constants (a copy is as good as the original) and
new variables; everything that the process has already is bound to its running copy and not followed. Existing
variables are always bound: their values are the state that a patch must keep.

A function that the process has keeps its old entry as its address for ever; the plan later writes a jump there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ipbp.errors import Refusal
from ipbp.graph.linkonce import is_linkonce
from ipbp.graph.model import I32, I64, Binding, BlockKind, LinkGraph, SymbolType
from ipbp.graph.names import Names
from ipbp.graph.rows import is_one_of
from ipbp.graph.unit import UNBOUND, Slot, Unit
from ipbp.stages.compare import Status, part_of
from ipbp.stages.copies import Copies
from ipbp.stages.correlate import Correlation
from ipbp.stages.entry_targets import entry_targets
from ipbp.stages.initialisers import starts
from ipbp.stages.labels import stores_labels
from ipbp.stages.name_numbers import base_name
from ipbp.stages.targets import ABSOLUTES
from ipbp.stages.unwind import UnwindLinks, unwind_links
from ipbp.stages.virtual_tables import changed_slots, local_targets, table_changed

Place = tuple[int, int]
"""Load address and size."""
DATA_KINDS = frozenset({BlockKind.DATA, BlockKind.BSS, BlockKind.TLS_DATA, BlockKind.TLS_BSS})


@dataclass(frozen=True, slots=True)
class OldSide:
    """What is known of the code that runs now. Per old symbol the load address or UNBOUND; per old block whether
    memory was proved to hold it; `retired`: load address and size of what an earlier patch removed, by name;
    `straight`: exported names that the unit's code reaches without the dynamic loader's help; `copies`: load address
    and size of more copies of a function, all of the same code, by name; `formers`: see `pipeline.record`."""

    graph: LinkGraph
    address: I64
    proved: npt.NDArray[np.bool_]
    retired: Mapping[str, tuple[int, int]]
    straight: frozenset[str] = frozenset()
    copies: Mapping[str, Sequence[Place]] = field(default_factory=dict)
    formers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replaced:
    """A function with an old entry that gets a jump: the new block, its name, the entry, the old code's size.
    `targets`: offsets in the old code to which something else than its own direct branches may jump. `by_way_of`: load
    address of another entry of that function, which leads to the new block; the jump goes there. `former`: the old
    function's name, where it was another."""

    block: int
    name: str
    entry: int
    old_size: int
    targets: tuple[int, ...] = ()
    by_way_of: int = UNBOUND
    former: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """`added`: blocks of functions and variables that the process did not have. `elsewhere`: names of definitions of
    this unit that another unit of the patch brings. `copies`: as in `OldSide`, by the new names."""

    unit: Unit
    replaced: tuple[Replaced, ...]
    added: tuple[int, ...]
    refusals: tuple[Refusal, ...]
    elsewhere: frozenset[str] = frozenset()
    copies: Mapping[str, Sequence[Place]] = field(default_factory=dict)


def select(
    name: str,
    new: LinkGraph,
    old: OldSide,
    copies: Copies,
    image: str = "",
    elsewhere: frozenset[str] = frozenset(),
    wanted: Names | None = None,
) -> Selection:
    """The selection for one translation unit; `name` is its source path, for messages, `image` the key of the loaded
    image that it is a part of. `elsewhere`: names of functions and variables that another unit brings. `wanted`: names
    that other units use; None where that is not known."""
    found = _Selector(name, new, old, copies, elsewhere, wanted).run()
    return replace(found, unit=replace(found.unit, image=image), elsewhere=elsewhere)


def is_part(name: str) -> bool:
    """Whether this is a split-off part of a function (gcc's and LLVM's `.cold`), entered by jumps from it only."""
    return part_of(name) is not None


class _Selector:
    """One walk over the graph. `address` starts as what the process has and loses what is carried as a copy."""

    def __init__(
        self,
        name: str,
        new: LinkGraph,
        old: OldSide,
        copies: Copies,
        elsewhere: Container[str],
        wanted: Names | None,
    ) -> None:
        self.name, self.new, self.old, self.comparison = name, new, old, copies.comparison
        self.address = running_addresses(new, old, copies.correlation)
        self.ambiguous = dict(copies.correlation.ambiguous)
        self.copies, self.elsewhere, self.wanted = copies, elsewhere, wanted
        self.label_tables = label_tables(new)
        self.carried: set[int] = set()
        self.refusals: list[Refusal] = []

    def run(self) -> Selection:
        self._refuse_shared_constants()
        slots = tuple(self._slots())
        for block in (*self._roots(), *self._new_targets(slots)):
            self._carry(block)
        self._refuse_lone_parts()
        carried = np.array(sorted(self.carried), dtype=np.int32)
        replaced = self._replaced(carried)
        replaced += self._more_entries({row.block for row in replaced})
        has_entry = {row.block for row in replaced}
        for block in self.carried:
            if block not in has_entry:
                self._forget_running_copy(block)
        added = tuple(
            int(b) for b in carried if int(b) not in has_entry and self._is_named(int(b)) and not self._is_part(int(b))
        )
        resolver = np.full(len(self.new.symbols), UNBOUND, dtype=np.int64)
        unit = Unit(self.name, self.new, carried, self.address, resolver, straight=self.old.straight, slots=slots)
        return Selection(unit, replaced, added, tuple(self.refusals), copies=self._unchanged_copies())

    def _roots(self) -> list[int]:
        status = self.comparison.status
        added = np.flatnonzero((status == Status.NEW) & is_one_of(self.new.blocks.kind, (BlockKind.CODE, *DATA_KINDS)))
        added = added[self.new.symbols.binding[self.new.blocks.anchor[added]] != Binding.LOCAL]
        if self.wanted is not None:
            added = added[self.wanted.rows_of([self.new.block_name(int(block)) for block in added]) >= 0]
        added = np.concatenate([added, starts(self.new, status != Status.SAME)])
        roots = [b for b in self.changed_code if not self._is_part(b)] + [int(b) for b in added]
        return [block for block in roots if not self._is_elsewhere(block)]

    @cached_property
    def changed_code(self) -> list[int]:
        is_code = self.new.blocks.kind == BlockKind.CODE
        found: list[int] = np.flatnonzero(is_code & (self.comparison.status == Status.CHANGED)).tolist()
        return found

    def _refuse_lone_parts(self) -> None:
        """A part that changed and that no function brings along would be in force nowhere."""
        for block in self.changed_code:
            whole = part_of(self.new.symbols.name[int(self.new.blocks.anchor[block])])
            if block not in self.carried and whole is not None and whole not in self.elsewhere:
                self.refusals.append(_lone(self.new.block_name(block), self.name))

    def _slots(self) -> Iterator[Slot]:
        """Of running tables of virtual functions."""
        for block in self.comparison.tables:
            before, place = int(self.comparison.old_block[block]), int(self.address[self.new.blocks.anchor[block]])
            name = self.new.block_name(block)
            if place == UNBOUND:
                continue  # it is not in the program: who uses it brings it
            if not self.old.proved[before]:
                self.refusals.append(_unproved(name, self.name))
            yield from changed_slots(self.old.graph, before, self.new, block, place)

    def _new_targets(self, slots: Iterable[Slot]) -> list[int]:
        """Functions that come into a slot and that the process does not have."""
        homes = local_targets(self.new, slots)
        return [b for b in homes if self.address[self.new.blocks.anchor[b]] == UNBOUND and not self._is_elsewhere(b)]

    @cached_property
    def unwind_links(self) -> UnwindLinks:
        return unwind_links(self.new)

    def _carry(self, root: int) -> None:
        links = self.unwind_links
        waiting = [root]
        while waiting:
            block = waiting.pop()
            if block in self.carried:
                continue
            self.carried.add(block)
            targets = np.unique(self.new.edges.target[self.new.edges_of(block)])
            # An exception table describes one function's code, and goes where that goes.
            for symbol in (*targets, *links.symbol[links.block == block]):
                target = int(self.new.symbols.block[symbol])
                if target >= 0 and self._must_come_along(int(symbol), target, referrer=block):
                    waiting.append(target)

    def _must_come_along(self, symbol: int, block: int, referrer: int) -> bool:
        kind = BlockKind(self.new.blocks.kind[block])
        status = self.comparison.status[block]
        known = self.address[symbol] != UNBOUND
        if not self._is_named(block) or self._is_part(block):
            return True
        if self._is_elsewhere(block):
            return False
        if kind == BlockKind.CODE:
            # A function that runs under no address of its own (inlined everywhere, dropped by the linker) is new
            # to the process whatever the objects say.
            return bool(status != Status.SAME) or not known
        if kind in (BlockKind.RODATA, BlockKind.RELRO) and status == Status.CHANGED:
            return True  # a constant is no state: who uses it was judged as changed and gets the new one
        if self.label_tables[block] and known:
            # The running table leads into the old code, however alike the two tables are.
            if kind in DATA_KINDS and not self._is_dispatch_table(block):
                self._refuse_label(symbol, referrer)
            return True
        if known:
            return False
        if kind in DATA_KINDS and status != Status.NEW:
            self._refuse_unlocated(symbol, referrer)
            return False
        if symbol in self.ambiguous:
            self._refuse_ambiguous(symbol, referrer)
            return False
        return True

    def _replaced(self, carried: I32) -> tuple[Replaced, ...]:
        rows: list[Replaced] = []
        old_blocks = self.comparison.old_block[carried]
        targets = entry_targets(self.old.graph, old_blocks[old_blocks >= 0])
        for block in map(int, carried):
            anchor = int(self.new.blocks.anchor[block])
            name = self.new.symbols.name[anchor]
            if self.new.blocks.kind[block] != BlockKind.CODE or self._is_part(block) or not name:
                continue
            if self.new.symbols.type[anchor] == SymbolType.IFUNC:
                self.refusals.append(_indirect(name, self.name))
            entry, old_block = int(self.address[anchor]), int(self.comparison.old_block[block])
            old_size = int(self.old.graph.blocks.size[old_block]) if old_block >= 0 else 0
            if entry == UNBOUND:
                entry, old_size = self.old.retired.get(name, (UNBOUND, 0))
                self.address[anchor] = entry
            if entry == UNBOUND or any(row.entry == entry for row in rows if self.copies.is_copy(block)):
                self.address[anchor] = UNBOUND  # of two copies that were one before, the other is new
                continue
            if old_block >= 0 and not self.old.proved[old_block]:
                self.refusals.append(_unproved(name, self.name))
            if old_block >= 0 and stores_labels(self.old.graph, old_block):
                self.refusals.append(_stored_label(name, self.name))
            former = self.old.graph.block_name(old_block) if old_block >= 0 else name
            former = former if base_name(former) != base_name(name) else ""
            rows.append(Replaced(block, name, entry, old_size, targets.get(old_block, ()), former=former))
        return tuple(rows)

    def _more_entries(self, carried: Container[int]) -> tuple[Replaced, ...]:
        """The other entries of functions of which there are several copies: they lead to the one that leads on."""
        left = [*self.copies.leads, *((old, new) for old, new in self.copies.same if new in carried)]
        targets = entry_targets(self.old.graph, np.array([old for old, _ in left], dtype=np.int32))
        rows: list[Replaced] = []
        for old_block, block in left if self.carried else ():
            for entry, size in self._places(old_block):
                rows.append(self._by_another(block, entry, size, targets.get(old_block, ())))
            if not self.old.proved[old_block]:
                self.refusals.append(_unproved(self.new.block_name(block), self.name))
        for block in self.carried:
            old_block = int(self.comparison.old_block[block])
            if old_block >= 0 and block in carried:
                more = self.old.copies.get(self.old.graph.block_name(old_block), ())
                rows += [self._by_another(block, entry, size, ()) for entry, size in more]
        return tuple(rows)

    def _by_another(self, block: int, entry: int, size: int, targets: tuple[int, ...]) -> Replaced:
        anchor = int(self.new.blocks.anchor[block])
        name = self.new.symbols.name[anchor]
        return Replaced(block, name, entry, size, targets, by_way_of=int(self.address[anchor]))

    def _places(self, old_block: int) -> list[Place]:
        """Where the old block and what equals it run."""
        graph = self.old.graph
        address = int(self.old.address[graph.blocks.anchor[old_block]])
        own = [] if address == UNBOUND else [(address, int(graph.blocks.size[old_block]))]
        return [*own, *self.old.copies.get(graph.block_name(old_block), ())]

    def _unchanged_copies(self) -> dict[str, Sequence[Place]]:
        """For each function that runs on as it is where more copies of it are."""
        found: dict[str, list[Place]] = {}
        pairs = [*_pairs(self.comparison.old_block)] if self.old.copies else []
        for block, old_block in pairs:
            more = self.old.copies.get(self.old.graph.block_name(old_block), ())
            if more and block not in self.carried:
                found.setdefault(self.new.block_name(block), []).extend(more)
        for old_block, block in self.copies.same:
            if block not in self.carried:
                found.setdefault(self.new.block_name(block), []).extend(self._places(old_block))
        return {name: tuple(dict.fromkeys(rows)) for name, rows in found.items()}

    def _forget_running_copy(self, block: int) -> None:
        self.address[self.new.symbols.block == block] = UNBOUND

    def _is_named(self, block: int) -> bool:
        return bool(self.new.symbols.name[int(self.new.blocks.anchor[block])]) and not bool(
            self.new.blocks.mergeable[block]
        )

    def _is_elsewhere(self, block: int) -> bool:
        return self.new.symbols.name[int(self.new.blocks.anchor[block])] in self.elsewhere

    def _is_part(self, block: int) -> bool:
        return is_part(self.new.symbols.name[int(self.new.blocks.anchor[block])])

    def _is_dispatch_table(self, block: int) -> bool:
        """Several labels and nothing else. A writable variable with one label is the state of a coroutine."""
        edges = self.new.edges_of(block)
        count = edges.stop - edges.start
        return bool(count > 1 and count * 8 == int(self.new.blocks.size[block]))

    def _refuse_label(self, symbol: int, referrer: int) -> None:
        name, user = self.new.symbols.name[symbol], self.new.block_name(referrer)
        self.refusals.append(
            Refusal(
                "label-in-variable",
                f"'{user}' keeps the address of one of its labels in the variable '{name}', which may hold a place in "
                "the old code now",
                "Leave this function out of the edit.",
                name,
                self.name,
            )
        )

    def _refuse_shared_constants(self) -> None:
        """A constant that other files can see: functions of theirs, which were not recompiled, would go on reading
        the old one. What every user has in its own object was compiled again for every user, but for what objects of
        a class lead to."""
        blocks = self.new.blocks
        shared = is_one_of(blocks.kind, (BlockKind.RODATA, BlockKind.RELRO)) & (
            self.comparison.status == Status.CHANGED
        )
        shared &= self.new.symbols.binding[blocks.anchor] != Binding.LOCAL
        shared &= self.address[blocks.anchor] != UNBOUND
        for_all = is_linkonce(self.new)[blocks.anchor]
        for block in np.flatnonzero(shared):
            name = self.new.block_name(int(block))
            table = table_changed(name, self.name)
            if table is None and for_all[block]:
                continue
            self.refusals.append(
                table
                or Refusal(
                    "shared-constant-changed",
                    f"the constant '{name}' changed, and other files may read the old one",
                    "Make it static where only this file uses it; else build and start the program once more.",
                    name,
                    self.name,
                )
            )

    def _refuse_unlocated(self, symbol: int, referrer: int) -> None:
        name, user = self.new.symbols.name[symbol], self.new.block_name(referrer)
        self.refusals.append(
            Refusal(
                "variable-unlocated",
                f"'{user}' uses the variable '{name}', whose place in the running program could not be found",
                "Keep a symbol table in the program (do not strip it), or leave this variable out of the edit.",
                name,
                self.name,
            )
        )

    def _refuse_ambiguous(self, symbol: int, referrer: int) -> None:
        name, user = self.new.symbols.name[symbol], self.new.block_name(referrer)
        old = ", ".join(f"'{self.old.graph.symbols.name[c]}'" for c in self.ambiguous[symbol])
        self.refusals.append(
            Refusal(
                "ambiguous-static",
                f"'{user}' uses '{name}', which could be any of {old} of the running program",
                "Give the static variables different names, then build and start the program once more.",
                name,
                self.name,
            )
        )


def _pairs(old_block: I32) -> Iterator[tuple[int, int]]:
    """(new block, old block) for all that have one."""
    rows = np.flatnonzero(old_block >= 0)
    yield from zip(rows.tolist(), old_block[rows].tolist(), strict=True)


def running_addresses(new: LinkGraph, old: OldSide, correlation: Correlation) -> I64:
    """Per new symbol the load address of its old counterpart, or UNBOUND. A second name in a block whose first has
    an address gets it by its offset."""
    address = np.full(len(new.symbols), UNBOUND, dtype=np.int64)
    paired = np.flatnonzero(correlation.symbol >= 0)
    address[paired] = old.address[correlation.symbol[paired]]
    anchored = np.flatnonzero((address == UNBOUND) & (new.symbols.block >= 0))
    anchor = new.blocks.anchor[new.symbols.block[anchored]]
    base = address[anchor]
    known = base != UNBOUND
    rows = anchored[known]
    address[rows] = base[known] + new.symbols.offset[rows] - new.symbols.offset[anchor[known]]
    return address


def label_tables(graph: LinkGraph) -> npt.NDArray[np.bool_]:
    """For each block of data, whether it holds addresses inside a function: of labels, or of the cases of a switch."""
    edges, home = graph.edges, graph.symbols.block[graph.edges.target]
    kind = graph.blocks.kind
    to_code = (home >= 0) & (kind[np.maximum(home, 0)] == BlockKind.CODE)
    inside = (graph.symbols.offset[edges.target] + edges.addend != 0) | ~is_one_of(edges.kind, ABSOLUTES)
    from_data = is_one_of(kind[edges.block], (BlockKind.RODATA, BlockKind.RELRO, BlockKind.DATA))
    result = np.zeros(len(graph.blocks), dtype=np.bool_)
    result[edges.block[to_code & inside & from_data]] = True
    return result


def _unproved(name: str, file: str) -> Refusal:
    return Refusal(
        "not-the-running-code",
        f"the code of '{name}' in memory is not the code of the old object",
        "Rebuild and restart the program once, so that the build tree and the process agree.",
        name,
        file,
    )


def _lone(name: str, file: str) -> Refusal:
    fact = f"'{name}' changed, which is a part of a function that was not found to be another one"
    return Refusal("part-alone", fact, "Report this as a bug; another change to the function works.", name, file)


def _stored_label(name: str, file: str) -> Refusal:
    return Refusal(
        "label-in-variable",
        f"'{name}' takes the address of one of its labels, and a place in the old code may be kept somewhere now",
        "Leave this function out of the edit.",
        name,
        file,
    )


def _indirect(name: str, file: str) -> Refusal:
    return Refusal(
        "indirect-function-changed",
        f"'{name}' is an indirect function (ifunc); its resolver has run already",
        "Edit the implementations that it chooses from instead.",
        name,
        file,
    )
