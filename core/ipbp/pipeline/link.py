"""Objects linked against an image on disk, at its link addresses and with no process: `ipbp link`.

The same stages as for a patch of a running program, except that nothing is compared: everything that the objects
define is carried, and outside names mean what the image says, its PLT stubs where it imports them. The result can
be looked at with objdump and compared with what a linker makes at these addresses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ipbp.errors import Refusal, raise_all
from ipbp.formats.elf_image import read_image
from ipbp.formats.elf_linked import PT_INTERP, map_file, read_linked
from ipbp.formats.elf_patch import write_patch
from ipbp.graph.image import Found, LoadedImage
from ipbp.graph.layout import PROTECTIONS, Layout
from ipbp.graph.model import UNDEFINED, Binding, BlockKind, LinkGraph
from ipbp.graph.threads import executable_block
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.protocol import Region
from ipbp.stages.arena import PAGE, Arena, Part, choose_arena
from ipbp.stages.layout import demand, layout
from ipbp.stages.relocate import relocate
from ipbp.stages.resolve import resolve
from ipbp.stages.thread_locals import Threads, bind_thread_locals

THREAD_KINDS = (BlockKind.TLS_DATA, BlockKind.TLS_BSS)


def link(
    graphs: Sequence[LinkGraph], image_file: Path, output: Path, base: int | None, defined: Mapping[str, int]
) -> tuple[Sequence[Unit], Layout]:
    """Link the objects to the image in `image_file` and write the patch file `output`; what it holds, and where.

    `base`: link address where the result starts, a multiple of the page size; None chooses one near the image.
    `defined`: addresses of names, before what the image says of them.

    Errors: Refused; `image-*`, `no-near-memory`, `unwind-malformed`, `debug-too-large`; OSError for `output`.
    """
    image = read_image(str(image_file))
    units = [replace(_whole_unit(graph, defined), image=image.key) for graph in graphs]
    units, unreached = bind_thread_locals(units, _threads(image, image_file), {})
    units, unresolved = resolve(units, {image.key: _Alone(image)})
    raise_all(_defined_twice(units, defined), _new_thread_locals(units), unreached, unresolved)
    placed = layout(units, _arena(image, base, demand(units)))
    raise_all(placed.refusals)
    linked = relocate(units, placed)
    raise_all(linked.refusals)
    write_patch(output, units, placed, linked)
    return units, placed


def _whole_unit(graph: LinkGraph, defined: Mapping[str, int]) -> Unit:
    address = np.full(len(graph.symbols), UNBOUND, dtype=np.int64)
    for symbol in np.flatnonzero(graph.symbols.block == UNDEFINED).tolist():
        address[symbol] = defined.get(graph.symbols.name[symbol], UNBOUND)
    nowhere = np.full(len(graph.symbols), UNBOUND, dtype=np.int64)
    return Unit(graph.path, graph, np.arange(len(graph.blocks), dtype=np.int32), address, nowhere)


@dataclass(frozen=True, slots=True)
class _Alone:
    """The scope of an image on disk. Libraries are loaded by a process; without one a name of theirs has no
    address."""

    image: LoadedImage
    order: tuple[str, ...] = ()
    binds_itself: bool = True

    def exports(self, name: str) -> bool:
        return False

    def lookup(self, name: str) -> Found | None:
        return None

    def bound(self, name: str) -> int | None:
        return None


def _threads(image: LoadedImage, file: Path) -> Threads:
    """Where a program has its thread-local variables is fixed by the ABI; of a library's only a process tells."""
    is_program = not image.is_pie or read_linked(map_file(str(file)), str(file)).segment(PT_INTERP) is not None
    own = executable_block(image) if is_program else None
    return Threads(image, own, (), lambda _name: None, lambda _image: None)


def _new_thread_locals(units: Sequence[Unit]) -> list[Refusal]:
    return [
        Refusal(
            "new-thread-local",
            f"'{unit.graph.block_name(block)}' is a new thread-local variable, and a file has no threads to give it to",
            "Link without it: `hotpatch` adds it to a running program.",
            unit.graph.block_name(block),
            unit.name,
        )
        for unit in units
        for block in np.flatnonzero(np.isin(unit.graph.blocks.kind, THREAD_KINDS)).tolist()
    ]


def _defined_twice(units: Sequence[Unit], defined: Mapping[str, int]) -> list[Refusal]:
    found = []
    for unit in units:
        symbols = unit.graph.symbols
        for symbol in np.flatnonzero((symbols.block != UNDEFINED) & (symbols.binding != Binding.LOCAL)).tolist():
            name = symbols.name[symbol]
            if name in defined:
                found.append(
                    Refusal(
                        "duplicate-symbol",
                        f"'{name}' is defined in {unit.name} and by --define",
                        "Leave one of the two out.",
                        name,
                        unit.name,
                    )
                )
    return found


def _arena(image: LoadedImage, base: int | None, needed: Mapping[str, int]) -> Arena:
    if base is None:
        region = Region(image.start, image.end, "r-x", 0, image.path)
        return choose_arena([region], image.near_start, image.near_end, low_2g=image.is_low, demand=needed)
    parts, start = [], base
    for protection in PROTECTIONS:
        size = -(-needed[protection] // PAGE) * PAGE
        parts.append(Part(protection, start, size))
        start += size
    return Arena(base, tuple(parts))
