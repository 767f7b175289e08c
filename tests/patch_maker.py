"""Helpers of the tests of layout, relocate, plan and the patch file: compile a source, carry blocks, link them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ipbp.formats.elf_object import read_object
from ipbp.graph.layout import Layout, LinkedImage, Unwinder
from ipbp.graph.model import UNDEFINED, LinkGraph
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.arena import Arena, Part
from ipbp.stages.layout import Group, layouts
from ipbp.stages.relocate import relocate

FUNCTION_SECTIONS = ("-ffunction-sections", "-fdata-sections")
HIGH = 0x5555_5400_0000
LOW = 0x1000_0000


@dataclass(frozen=True)
class Linked:
    units: tuple[Unit, ...]
    layout: Layout
    image: LinkedImage

    def address(self, name: str, unit: int = 0) -> int:
        """Of the carried copy of a symbol."""
        return int(self.layout.units[unit].copy[symbol(self.units[unit].graph, name)])

    def read(self, address: int, size: int) -> bytes:
        """What the patch puts into memory there."""
        for protection, content in self.image.segments.items():
            start, end = self.layout.written(protection)
            if start <= address and address + size <= end:
                return content[address - start :][:size]
        raise AssertionError(f"{address:#x} is not in the patch")


def make_arena(base: int = HIGH, size: int = 1 << 20) -> Arena:
    return Arena(base, tuple(Part(p, base + n * size, size) for n, p in enumerate(("rx", "r", "rw"))))


def compile_object(folder: Path, source: str, compiler: str, *options: str, name: str = "unit.c") -> Path:
    path = folder / name
    path.write_text(source)
    result = path.with_suffix(".o")
    subprocess.run([compiler, *FUNCTION_SECTIONS, *options, "-c", path.name, "-o", result], cwd=folder, check=True)
    return result


def graph_of(path: Path) -> LinkGraph:
    return read_object(path.read_bytes(), str(path))


def symbol(graph: LinkGraph, name: str) -> int:
    return graph.symbols.name.index(name)


def unit_of(
    graph: LinkGraph,
    carried: Sequence[str] | None = None,
    addresses: Mapping[str, int] | None = None,
    resolvers: Mapping[str, int] | None = None,
    name: str = "unit.c",
    got_base: int = UNBOUND,
) -> Unit:
    """A unit that carries the blocks of the named symbols and all unnamed ones (None: every block)."""
    address, resolver = (np.full(len(graph.symbols), UNBOUND, dtype=np.int64) for _ in range(2))
    for known, column in ((addresses or {}, address), (resolvers or {}, resolver)):
        for key, value in known.items():
            column[symbol(graph, key)] = value
    blocks = range(len(graph.blocks))
    if carried is not None:
        names = [graph.symbols.name[int(anchor)] for anchor in graph.blocks.anchor]
        blocks = [b for b in blocks if not names[b] or names[b] in carried or names[b].startswith(".L")]
    return Unit(name, graph, np.array(list(blocks), dtype=np.int32), address, resolver, got_base)


def undefined_names(graph: LinkGraph) -> list[str]:
    return [name for name, block in zip(graph.symbols.name, graph.symbols.block, strict=True) if block == UNDEFINED]


def link(units: Sequence[Unit], arena: Arena | None = None, unwinders: Sequence[Unwinder] = ()) -> Linked:
    """Laid out and relocated, which must be without refusals."""
    (placed,) = layouts([Group(units, arena or make_arena(), unwinders)])
    assert placed.refusals == ()
    image = relocate(units, placed)
    assert image.refusals == ()
    return Linked(tuple(units), placed, image)
