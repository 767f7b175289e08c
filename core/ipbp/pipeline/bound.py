"""Every outside name of a patch's units, bound as it is seen from the unit's own image."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

import numpy as np

from ipbp.build.store import Store
from ipbp.errors import Refusal
from ipbp.formats.elf_process import ImageScope, LoadedProcess
from ipbp.formats.elf_threads import descriptors, thread_block
from ipbp.formats.foreseen import Foreseen
from ipbp.graph.model import I64, LinkGraph, SymbolType
from ipbp.graph.threads import NOT_SHOWN, ShownThreads, ThreadBlock
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.pipeline.record import Record
from ipbp.pipeline.threads import patched_blocks
from ipbp.pipeline.unit_names import global_symbols, stored_names
from ipbp.stages.resolve import Defined, resolve
from ipbp.stages.thread_locals import Threads, bind_thread_locals


def bound(
    units: Sequence[Unit], process: LoadedProcess, defined: dict[str, dict[str, Defined]], record: Record
) -> tuple[list[Unit], tuple[Refusal, ...]]:
    """The units with all outside names bound; the calls that ask for thread-local variables are gone. `defined`: see
    `defined_names`."""
    at_once = Foreseen((process.modules[0].pid, process.modules[0].key, "names"), process.read)
    process = replace(process, read=at_once)  # what each name's pointer cell holds
    scopes = {unit.image: process.scope(unit.image) for unit in units}
    patched = patched_blocks(record, process.read)
    found: dict[int, Unit] = {}
    refusals: list[Refusal] = []
    for key, scope in scopes.items():
        rows = [row for row, unit in enumerate(units) if unit.image == key]
        names = {name: row.address for name, row in defined.get(key, {}).items()}
        threaded, refused = bind_thread_locals([units[row] for row in rows], _threads(scope, process, patched), names)
        has_any = any((units[row].graph.symbols.type == SymbolType.TLS).any() for row in rows)
        shown = _shown_threads(scope, process, patched) if has_any else NOT_SHOWN
        found.update(zip(rows, (replace(unit, shown=shown) for unit in threaded), strict=True))
        refusals += refused
    resolved, undefined = resolve([found[row] for row in range(len(units))], scopes, defined)
    at_once.done()
    return resolved, (*refusals, *undefined)


def defined_names(units: Sequence[Unit], record: Record, store: Store) -> dict[str, dict[str, Defined]]:
    """The global names that run in these units, and in those of earlier patches, by image."""
    names: dict[str, dict[str, Defined]] = {}
    edited = {(unit.image, unit.name) for unit in units}
    for image, rows in record.images.items():
        for name, row in rows.items():
            if not row.object:
                shared = {found: Defined(address, False) for found, address in row.address.items()}
                names.setdefault(image, {}).update(shared)
            elif (image, name) not in edited:
                known = stored_names(store, row.object, row.members).defined.items()
                names.setdefault(image, {}).update(
                    (found, Defined(row.address[found], is_shared, found in row.beside))
                    for found, is_shared in known
                    if found in row.address
                )
    for unit in units:
        before = record.units(unit.image).get(unit.name)
        beside = before.beside if before is not None else ()
        names.setdefault(unit.image, {}).update(global_names(unit.graph, unit.address, beside))
    return names


def global_names(graph: LinkGraph, address: I64, beside: Container[str] = ()) -> dict[str, Defined]:
    """The graph's global names that have an address."""
    rows = np.flatnonzero(address != UNBOUND)
    return {
        name: Defined(int(address[row]), is_shared, name in beside)
        for row, name, is_shared in global_symbols(graph, rows)
    }


def _shown_threads(scope: ImageScope, process: LoadedProcess, patched: Sequence[ThreadBlock]) -> ShownThreads:
    """For debuggers: what patches brought lies in their own memory, the rest is the image's."""
    blocks = (thread_block(process, module) for module in process.modules)
    first = next((block for block in blocks if block is not None and block.module == 1), None)
    own = thread_block(process, scope.module)
    return ShownThreads((*patched, *((own,) if own else ())), first.offset if first else None)


def _threads(scope: ImageScope, process: LoadedProcess, patched: Sequence[ThreadBlock]) -> Threads:
    def block_of(key: str) -> ThreadBlock | None:
        module = process.module(key)
        return thread_block(process, module) if module is not None else None

    own = thread_block(process, scope.module)
    return Threads(scope.image, own, patched, scope.lookup, block_of, *descriptors(scope.module))
