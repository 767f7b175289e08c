"""Every thread-local variable that a patch uses gets its place, and the code that reaches it its final form.

New code runs beside threads that have their variables already, so nothing is left to find out when it runs: where
the offset from the thread pointer is known, the access is rewritten to use it, as a linker does for an executable
(`Machine.local_exec`). That holds in every image whose block has one place in all threads, whoever the code belongs to.
Rewriting takes the call of __tls_get_addr away, so this comes before `resolve` looks for that name. Where each thread
has a block elsewhere, the call stays (`stages.thread_pairs`).

Values of running threads are kept because nothing here touches them: only code is new.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ipbp.arch import aarch64_tls, x86_64_tls
from ipbp.arch.machines import machine_of
from ipbp.arch.rewriting import NONE, Rewriting
from ipbp.errors import Refusal
from ipbp.graph.edges import EdgeKind
from ipbp.graph.image import Found, LoadedImage
from ipbp.graph.model import COMMON, I64, UNDEFINED, Binding, BlockKind, Edges, LinkGraph, SymbolType
from ipbp.graph.rows import is_one_of
from ipbp.graph.threads import ThreadBlock, ThreadPlace
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.thread_pairs import DESCRIPTOR_KINDS

OFFSET_KINDS = (EdgeKind.TPOFF32, EdgeKind.TPOFF64, *aarch64_tls.OFFSETS)
_ACCESSES = (*x86_64_tls.ACCESSES, *aarch64_tls.ACCESSES)
_IN_SECTION = tuple(kind for kind in EdgeKind if EdgeKind.SECREL32 <= kind <= EdgeKind.SECREL_LOW12_OF_128)
THREAD_LOCAL = (*_ACCESSES, *OFFSET_KINDS, EdgeKind.DTPOFF32, EdgeKind.DTPOFF64, *_IN_SECTION)
"""Kinds of fixups that mean a thread-local variable."""

_TLS = (BlockKind.TLS_DATA, BlockKind.TLS_BSS)
_IN_BLOCK = {EdgeKind.DTPOFF32: EdgeKind.TPOFF32, EdgeKind.DTPOFF64: EdgeKind.TPOFF64}
_OF_OWN_BLOCK = (EdgeKind.TLS_LD32, *_IN_BLOCK)
_BLOCK_BASE = "_TLS_MODULE_BASE_"  # what local variables are counted from in the descriptor dialect

NOT_REACHED = "thread-local"
ASKED_FOR = ("-ftls-model=global-dynamic",)
"""Has gcc and clang ask `__tls_get_addr` for a variable, which works wherever the threads have it."""


@dataclass(frozen=True, slots=True)
class Threads:
    """What is known of the process's thread-local variables, seen from one image. `own`: that image's block, None
    without one; `patched`: blocks of earlier patches; `lookup`: what a name means; `block_of`: the block of an image,
    by what `Found.image` says. Load addresses of the image's descriptors: `named_descriptors` by the variable's name,
    `own_descriptors` by its offset in `own`."""

    image: LoadedImage
    own: ThreadBlock | None
    patched: Sequence[ThreadBlock]
    lookup: Callable[[str], Found | None]
    block_of: Callable[[str], ThreadBlock | None]
    named_descriptors: Mapping[str, int] = field(default_factory=dict)
    own_descriptors: Mapping[int, int] = field(default_factory=dict)

    def described(self, name: str, place: ThreadPlace) -> ThreadPlace:
        """The variable of this name with its descriptor, where the image has one."""
        found = self.named_descriptors.get(name, 0)
        if not found and self.own is not None and place.module == self.own.module:
            found = self.own_descriptors.get(place.in_block, 0)
        return replace(place, descriptor=found)


def bind_thread_locals(
    units: Sequence[Unit], threads: Threads, defined: Mapping[str, int]
) -> tuple[list[Unit], tuple[Refusal, ...]]:
    """The units with `thread` filled in and their accesses rewritten. Refusals: `thread-local`, `undefined-symbol`.

    `defined`: load addresses of the global names of edited objects that run already.
    """
    bound, refusals = [], []
    brought = _brought(units)
    for unit in units:
        rows = _thread_local_rows(unit)
        if len(rows):
            binder = _Binder(unit, threads, defined, brought)
            bound.append(binder.run(rows))
            refusals += binder.refusals
        else:
            bound.append(unit)
    return bound, tuple(dict.fromkeys(refusals))


def offsets(unit: Unit) -> I64:
    """Per symbol the variable's offset from the thread pointer, UNBOUND for everything else."""
    column = np.full(len(unit.graph.symbols), UNBOUND, dtype=np.int64)
    for symbol, place in unit.thread.items():
        if place.offset is not None:
            column[symbol] = place.offset
    return column


def _brought(units: Sequence[Unit]) -> set[str]:
    """Names of new thread-local variables that other units may use."""
    names: set[str] = set()
    for unit in units:
        symbols = unit.graph.symbols
        carried = unit.carried[is_one_of(unit.graph.blocks.kind[unit.carried], _TLS)]
        rows = np.flatnonzero(np.isin(symbols.block, carried) & (symbols.binding != Binding.LOCAL))
        names.update(symbols.name[row] for row in rows.tolist())
    return names


def _thread_local_rows(unit: Unit) -> I64:
    """Rows of the graph's edges in carried blocks that mean thread-local variables."""
    graph = unit.graph
    first, last = graph.first_edge[unit.carried].tolist(), graph.first_edge[unit.carried + 1].tolist()
    rows = [np.arange(a, b) for a, b in zip(first, last, strict=True)]
    every = np.concatenate(rows) if rows else np.empty(0, np.int64)
    found: I64 = every[is_one_of(graph.edges.kind[every], THREAD_LOCAL)]
    return found


@dataclass(slots=True)
class _Binder:
    """One unit. `brought`: names of new variables of the patch; `places`: what was found so far, by symbol."""

    unit: Unit
    threads: Threads
    defined: Mapping[str, int]
    brought: Collection[str]
    places: dict[int, ThreadPlace] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)

    def run(self, rows: I64) -> Unit:
        graph = self.unit.graph
        unknown = set()
        for symbol in np.unique(graph.edges.target[rows]).tolist():
            place = self._place(symbol)
            if place is not None:
                self.places[symbol] = self.threads.described(graph.symbols.name[symbol], place)
            elif not self._is_new(symbol):
                unknown.add(symbol)
                self.refusals.append(_undefined(graph.symbols.name[symbol], self.unit.name))
        writer = _Writer(graph)
        for row in rows.tolist():
            if int(graph.edges.target[row]) not in unknown and not self._settle(row, writer):
                self.refusals.append(self._refusal(row))
        return replace(self.unit, graph=writer.graph(), thread=self.places)

    def _place(self, symbol: int) -> ThreadPlace | None:
        symbols, own = self.unit.graph.symbols, self.threads.own
        name, address = symbols.name[symbol], int(self.unit.address[symbol])
        if name == _BLOCK_BASE:
            return self._base()
        is_outside = symbols.block[symbol] in (UNDEFINED, COMMON)
        if address == UNBOUND and is_outside:
            address = self._of_image(name)
            address = self.defined.get(name, UNBOUND) if address == UNBOUND else address
        if address != UNBOUND:
            # What patches brought lies in their own memory; an image's block may seem to overlap what follows it.
            blocks = [*self.threads.patched, *([own] if own is not None else [])]
            return next((block.place(address) for block in blocks if block.holds(address)), None)
        found = self.threads.lookup(name) if is_outside else None
        if found is None or not found.thread_local:
            return None
        block = self.threads.block_of(found.image)
        return block.place(found.address) if block is not None else None

    def _base(self) -> ThreadPlace | None:
        # Distances in the block are rewritten to distances from the thread pointer where that is possible.
        own = self.threads.own
        if own is None or own.offset is not None:
            return ThreadPlace(0)
        return own.place(own.start)

    def _of_image(self, name: str) -> int:
        """Address of the image's own variable: a global one, or a hidden one (as `resolve` finds functions)."""
        table = self.threads.image.symbols
        rows = [row for row in table.by_name.get(name, ()) if table.type[row] == SymbolType.TLS]
        shared = [row for row in rows if table.binding[row] != Binding.LOCAL]
        hidden = [row for row in rows if table.file[row] < 0 and len(table.files) > 0]
        return int(table.address[(shared or hidden)[0]]) if shared or hidden else UNBOUND

    @property
    def _asks_for_block(self) -> bool:
        """Whether each thread has the variables of this image elsewhere. Then code that asks for their block once and
        counts from there must go on to do so, for all of them."""
        return self.threads.own is not None and self.threads.own.offset is None

    def _is_new(self, symbol: int) -> bool:
        """Whether the patch brings the variable: then it gets one offset for all threads, which code waits for."""
        graph = self.unit.graph
        home = int(graph.symbols.block[symbol])
        return home >= 0 or home == COMMON or (home == UNDEFINED and graph.symbols.name[symbol] in self.brought)

    def _settle(self, row: int, writer: _Writer) -> bool:
        """Whether this access has its final form or needs none."""
        edges = self.unit.graph.edges
        kind, place = EdgeKind(int(edges.kind[row])), self.places.get(int(edges.target[row]))
        if kind in _OF_OWN_BLOCK and self._asks_for_block:
            return place is not None and place.module != 0
        if place is not None and place.offset is None:
            if kind in DESCRIPTOR_KINDS:
                return place.descriptor != 0
            return kind == EdgeKind.TLS_GD32 and place.module != 0
        if kind in OFFSET_KINDS:
            return place is not None or kind not in aarch64_tls.NARROW
        if kind in _IN_BLOCK:
            writer.kind[row] = _IN_BLOCK[kind]
            return True
        local_exec = machine_of(self.unit.graph.machine).local_exec
        rewritings = local_exec(kind, writer.code(row), int(edges.offset[row]))
        return bool(rewritings) and writer.rewrite(row, rewritings[0])

    def _refusal(self, row: int) -> Refusal:
        graph = self.unit.graph
        name = graph.symbols.name[int(graph.edges.target[row])]
        user = graph.block_name(int(graph.edges.block[row]))
        kind = EdgeKind(int(graph.edges.kind[row])).name
        return Refusal(
            NOT_REACHED,
            f"'{user}' uses the thread-local variable '{name}' in a way ({kind}) that cannot be made to work here",
            "Move the code that uses it into a function of its own that does not change.",
            name,
            self.unit.name,
        )


class _Writer:
    """A graph in which some accesses get another form. Blocks and symbols stay as they are."""

    def __init__(self, graph: LinkGraph) -> None:
        self._graph = graph
        self.kind = graph.edges.kind.copy()
        self._offset, self._addend = graph.edges.offset.copy(), graph.edges.addend.copy()
        self._kept = np.ones(len(graph.edges), dtype=np.bool_)
        self._contents: dict[int, bytearray] = {}  # by section

    def code(self, row: int) -> bytes:
        """The bytes of the block that holds this edge's field, as the object has them."""
        return bytes(self._graph.content(int(self._graph.edges.block[row])))

    def rewrite(self, row: int, rewriting: Rewriting) -> bool:
        """Whether it was possible: the call that goes must be the next edge."""
        if rewriting.call != NONE and not self._drop_call(row, rewriting.call):
            return False
        block = int(self._graph.edges.block[row])
        section = int(self._graph.blocks.section[block])
        if section not in self._contents:
            self._contents[section] = bytearray(self._graph.sections[section].content)
        start = int(self._graph.blocks.offset[block]) + rewriting.start
        self._contents[section][start : start + len(rewriting.code)] = rewriting.code
        if rewriting.field == NONE:
            self._kept[row] = False
        else:
            self.kind[row], self._offset[row] = rewriting.kind, rewriting.field
            self._addend[row] += rewriting.more
        return True

    def graph(self) -> LinkGraph:
        edges, kept = self._graph.edges, self._kept
        changed = Edges(edges.block[kept], self._offset[kept], self.kind[kept], edges.target[kept], self._addend[kept])
        first = np.searchsorted(changed.block, np.arange(len(self._graph.blocks) + 1)).astype(np.int64)
        sections = self._graph.sections.holding(self._contents)
        return replace(self._graph, sections=sections, edges=changed, first_edge=first)

    def _drop_call(self, row: int, field_: int) -> bool:
        edges = self._graph.edges
        after = row + 1
        if after >= len(edges) or (edges.block[after], edges.offset[after]) != (edges.block[row], field_):
            return False
        self._kept[after] = False
        return True


def _undefined(name: str, file: str) -> Refusal:
    return Refusal(
        "undefined-symbol",
        f"the new code uses the thread-local variable '{name}', and nothing in the process has it",
        "Define it, or link the program with the library that has it (-l) and start it once more.",
        name,
        file,
    )
