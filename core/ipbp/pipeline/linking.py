"""From resolved units to files with final bytes: arena by arena, each with its layout and its patch file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ipbp.afterwards import afterwards
from ipbp.errors import raise_all
from ipbp.formats.coff_process import WindowsProcess
from ipbp.formats.elf_patch import PatchFile, write_patch
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import Scope
from ipbp.graph.layout import Layout, LinkedImage, ThreadImage, UnitLayout, Unwinder
from ipbp.graph.unit import Unit
from ipbp.pipeline.loader import LIBGCC, LIBUNWIND, find_loader
from ipbp.pipeline.request import Request
from ipbp.pipeline.threads import keeps_room, new_thread_locals, thread_load
from ipbp.pipeline.windows import unwinder_of
from ipbp.protocol import Allocation, Load
from ipbp.stages.arena import Arena
from ipbp.stages.grouping import grouped
from ipbp.stages.layout import layouts
from ipbp.stages.plan import LinkedGroup
from ipbp.stages.relocate import relocate
from ipbp.stages.select import Replaced


@dataclass(frozen=True, slots=True)
class LinkedUnits:
    """`columns`: where everything of each unit lies, in the order of the units. `allocations`: arenas that have to be
    mapped. `arenas`: all of them, with what this patch takes. `threads`: new thread-local variables, `loads`: the
    libraries that make room for them."""

    groups: tuple[LinkedGroup, ...]
    columns: tuple[UnitLayout, ...]
    allocations: tuple[Allocation, ...]
    arenas: tuple[Arena, ...]
    threads: tuple[ThreadImage, ...]
    loads: tuple[Load, ...]


def link_units(
    units: Sequence[Unit], replaced: Sequence[Sequence[Replaced]], process: LoadedProcess, request: Request
) -> LinkedUnits:
    """The units at their final addresses, written to patch files. `replaced`: for each unit its functions that have
    an old entry. Errors: `Refused`, `no-near-memory`, `debug-too-large`; OSError."""
    scopes = {unit.image: process.scope(unit.image) for unit in units}
    images = {key: scope.image for key, scope in scopes.items()}
    if isinstance(process, WindowsProcess):
        unwinders: dict[str, tuple[Unwinder, ...]] = {key: (unwinder_of(process),) for key in scopes}
    else:
        unwinders = {key: _unwinders(scope) for key, scope in scopes.items()}
    parts = grouped(units, images, unwinders, request.arenas, request.regions)

    # Beyond this point no block may grow.
    libraries = [request.folder / f"threads-{request.number}-{row}.so" for row in range(len(parts.groups))]
    pairs = zip(parts.groups, libraries, strict=True)
    placed = layouts([replace(group, library=str(library)) for group, library in pairs])
    has_threads = any(layout.thread for layout in placed)
    loader = find_loader(process) if has_threads and keeps_room(process) else None
    no_room = new_thread_locals(units, process) if has_threads and loader is None else ()
    raise_all(*(layout.refusals for layout in placed), no_room)
    linked = [relocate(group.units, layout) for group, layout in zip(parts.groups, placed, strict=True)]
    raise_all(*(image.refusals for image in linked))

    # Beyond this point the bytes are final.
    groups: list[LinkedGroup] = []
    loads: list[Load] = []
    columns: dict[int, UnitLayout] = {}
    allocations: list[Allocation] = []
    arenas = {arena.base: arena for arena in request.arenas}
    rows = zip(parts.groups, parts.order, parts.is_new, placed, linked, strict=True)
    for group, order, is_new, layout, image in rows:
        file = request.folder / f"patch-{request.number}{f'-{len(groups)}' if groups else ''}.elf"
        patch = _written(file, group.units, layout, image, request.symbols_later)
        if layout.thread and loader:
            machine = group.units[0].graph.machine
            loads.append(thread_load(layout.thread, layout, image, loader, file, patch, machine))
        groups.append(LinkedGroup(file, group.units, [replaced[row] for row in order], layout, patch.segments))
        columns.update(zip(order, layout.units, strict=True))
        allocations += group.arena.allocations() if is_new else ()
        arenas[group.arena.base] = group.arena.taken(layout.ends(), [unit.image for unit in group.units])
    in_order = tuple(columns[row] for row in range(len(units)))
    threads = tuple(layout.thread for layout in placed if layout.thread)
    return LinkedUnits(tuple(groups), in_order, tuple(allocations), tuple(arenas.values()), threads, tuple(loads))


def _written(file: Path, units: Sequence[Unit], layout: Layout, image: LinkedImage, symbols_later: bool) -> PatchFile:
    """The patch file. Debug information takes as long as all the rest, and nothing but the debugger needs it."""
    if not symbols_later or layout.thread:
        return write_patch(file, units, layout, image)
    afterwards(partial(write_patch, file, units, layout, image))
    return write_patch(file, units, layout, image, is_plain=True)


def _unwinders(scope: Scope) -> tuple[Unwinder, ...]:
    """The unwinders that code of this image meets: libgcc, LLVM's, or both, of which only one is used, and it is not
    known which; a program of clang's with libc++ has both."""
    found = []
    for names in (LIBGCC, LIBUNWIND):
        register, deregister = (_address(scope, name) for name in names)
        if register is not None and deregister is not None:
            found.append(Unwinder(register, deregister, takes_record=names is LIBGCC))
    return tuple(found)


def _address(scope: Scope, name: str) -> int | None:
    found = scope.lookup(name)
    rows = scope.image.symbols.by_name.get(name, ())
    if found is not None:
        return found.address
    return int(scope.image.symbols.address[rows[0]]) if len(rows) == 1 else None
