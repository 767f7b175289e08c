"""Objects compiled from small sources for the tests of reading and comparing."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ipbp.formats.elf_object import read_object
from ipbp.graph.model import LinkGraph
from ipbp.stages.compare import Comparison, Status, compare
from ipbp.stages.correlate import Correlation, correlate

COMPILERS = ("gcc", "clang-19")
SECTIONS = ("-ffunction-sections", "-fdata-sections")
VARIANTS = [
    (compiler, (level, position))
    for compiler, level, position in itertools.product(COMPILERS, ("-O0", "-O2"), ("-fPIE", "-fno-pie"))
]
VARIANT_NAMES = [" ".join((compiler, *flags)) for compiler, flags in VARIANTS]
LAYOUTS = list(itertools.product(((), SECTIONS), repeat=2))
"""Flags of the old and the new object: with and without a section for each function and variable."""


@cache
def compiled(source: str, compiler: str, flags: tuple[str, ...], name: str = "unit.c") -> bytes:
    """The object file of a C source; flags such as `-g` as given."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_text(source)
        command = [compiler, "-w", *flags, "-c", name, "-o", "unit.o"]
        subprocess.run(command, cwd=folder, check=True, timeout=60)
        return Path(folder, "unit.o").read_bytes()


def graph_of(source: str, compiler: str, flags: tuple[str, ...]) -> LinkGraph:
    return read_object(compiled(source, compiler, flags), "unit.o")


class Pair:
    """Two objects, correlated and compared, with what a test wants to know by name."""

    def __init__(self, old: LinkGraph, new: LinkGraph) -> None:
        self.old, self.new = old, new
        self.correlation: Correlation = correlate(old, new)
        self.comparison: Comparison = compare(old, new, self.correlation)

    def named(self, *statuses: Status) -> set[str]:
        """Names of the new blocks with one of these statuses; unnamed content is not among them."""
        return {
            self.new.symbols.name[int(self.new.blocks.anchor[block])]
            for block in range(len(self.new.blocks))
            if self.comparison.status[block] in statuses
        } - {""}

    @property
    def removed(self) -> set[str]:
        return {self.old.block_name(block) for block in self.comparison.removed}

    @property
    def codes(self) -> set[str]:
        return {refusal.code for refusal in self.comparison.refusals}

    def counterpart(self, name: str) -> str | None:
        """The old name of a new symbol."""
        row = int(self.correlation.symbol[self.new.symbols.name.index(name)])
        return self.old.symbols.name[row] if row >= 0 else None


def pairs(old: str, new: str, compiler: str, flags: tuple[str, ...]) -> list[Pair]:
    """The comparison of two sources in every combination of layouts."""
    return [
        Pair(graph_of(old, compiler, flags + before), graph_of(new, compiler, flags + after))
        for before, after in LAYOUTS
    ]
