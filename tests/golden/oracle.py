"""The system linker as the judge: objects linked by it at the addresses that layout chose, and what differs then.

Linkers are told not to relax instructions, and mergeable sections lose their flag first, because ipbp neither rewrites
instructions nor merges strings. Cells of the pointer table are compared by what they hold, not by where they are.
"""

from __future__ import annotations

import mmap
import subprocess
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from elftools.elf.elffile import ELFFile
from patch_maker import Linked

from ipbp.arch.fields import FIELD_BITS, GOT_RELATIVE, WIDTH
from ipbp.arch.forms import Filled, Form
from ipbp.arch.machines import machine_of
from ipbp.graph.layout import UnitLayout
from ipbp.graph.model import LinkGraph
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.stages.targets import GOT_KINDS, CarriedEdges, carried_edges

R_64, R_RELATIVE = (1, 257), (8, 1027)
"""Dynamic relocations that put an address into a field (psABI, "Relocation Types")."""


@dataclass(frozen=True)
class Verdict:
    """`differences`: names of blocks whose bytes are not the linker's. `fixups`: how many were compared."""

    differences: tuple[str, ...]
    fixups: int


@dataclass(frozen=True)
class Surroundings:
    """What the objects refer to: absolute addresses of `symbols`, and `objects` whose `sections` lie at addresses."""

    symbols: Mapping[str, int] = field(default_factory=dict)
    objects: Sequence[Path] = ()
    sections: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LinkerOutput:
    path: Path

    @cached_property
    def elf(self) -> ELFFile:
        # Mapped: a file with a segment far away has a hole of that size.
        with self.path.open("rb") as file:
            return ELFFile(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    @cached_property
    def sections(self) -> list[tuple[int, bytearray]]:
        """Address and bytes of what is loaded, by address, as it is after the dynamic loader at bias 0."""
        rows = [row for row in self.elf.iter_sections() if row["sh_flags"] & 2 and row["sh_size"]]
        contents = [
            (row["sh_addr"], bytearray(row["sh_size"] if row["sh_type"] == "SHT_NOBITS" else row.data()))
            for row in rows
            if not row["sh_flags"] & 0x400
        ]
        return sorted(contents, key=lambda row: row[0])

    def relocated(self) -> LinkerOutput:
        """The same after the dynamic relocations that this file asks for."""
        for table in self.elf.iter_sections():
            if table["sh_type"] != "SHT_RELA" or not table["sh_flags"] & 2:
                continue
            symbols = self.elf.get_section(table["sh_link"])
            for row in table.iter_relocations():
                assert row["r_info_type"] in (*R_64, *R_RELATIVE), row
                value = row["r_addend"]
                if row["r_info_type"] in R_64:
                    value += symbols.get_symbol(row["r_info_sym"])["st_value"]
                content, at = self._at(row["r_offset"])
                content[at : at + 8] = (value & (1 << 64) - 1).to_bytes(8, "little")
        return self

    def read(self, address: int, size: int) -> bytes:
        content, at = self._at(address)
        assert at + size <= len(content), f"{address:#x} is not in the linker's file"
        return bytes(content[at : at + size])

    def _at(self, address: int) -> tuple[bytearray, int]:
        row = bisect_right([start for start, _content in self.sections], address) - 1
        return self.sections[row][1], address - self.sections[row][0]


def compare(ours: Linked, theirs: LinkerOutput) -> Verdict:
    """Every carried block that has bytes, held against the linker's."""
    differences, fixups = [], 0
    for unit, columns in zip(ours.units, ours.layout.units, strict=True):
        edges = carried_edges(unit)
        fixups += len(edges.kind)
        first = np.searchsorted(edges.block, unit.carried, side="left").tolist()
        last = np.searchsorted(edges.block, unit.carried, side="right").tolist()
        for block, start, end in zip(unit.carried.tolist(), first, last, strict=True):
            address, size = int(columns.block[block]), len(unit.graph.content(block))
            if not size:
                continue
            got, expected = bytearray(ours.read(address, size)), bytearray(theirs.read(address, size))
            for offset, width in _fields_of_cells(ours, theirs, columns, edges, range(start, end)):
                got[offset : offset + width] = expected[offset : offset + width] = bytes(width)
            for offset, bits in _parts_of_cells(unit, ours, theirs, columns, edges, range(start, end)):
                for side in (got, expected):
                    word = int.from_bytes(side[offset : offset + 4], "little") & ~bits
                    side[offset : offset + 4] = word.to_bytes(4, "little")
            if got != expected:
                differences.append(f"{unit.name}: {unit.graph.block_name(block)}")
    return Verdict(tuple(differences), fixups)


def _fields_of_cells(
    ours: Linked, theirs: LinkerOutput, columns: UnitLayout, edges: CarriedEdges, rows: range
) -> Iterator[tuple[int, int]]:
    """Offset and width of the fields that lead to cells which hold the same address on both sides."""
    for row in rows:
        kind, offset, width = int(edges.kind[row]), int(edges.offset[row]), int(WIDTH[edges.kind[row]])
        if kind not in GOT_KINDS or FIELD_BITS[kind] != -1:
            continue
        place = int(columns.block[edges.block[row]]) + offset
        counted_from = columns.got_base if GOT_RELATIVE[kind] else place
        cells = [
            counted_from - int(edges.addend[row]) + int.from_bytes(side.read(place, width), "little", signed=True)
            for side in (ours, theirs)
        ]
        if ours.read(cells[0], 8) == theirs.read(cells[1], 8):
            yield offset, width


def _parts_of_cells(
    unit: Unit, ours: Linked, theirs: LinkerOutput, columns: UnitLayout, edges: CarriedEdges, rows: range
) -> Iterator[tuple[int, int]]:
    """Offset and bits of the parts of instructions that together lead to such cells."""
    if unit.graph.machine != "aarch64" or not len(rows):
        return
    rows_ = slice(rows.start, rows.stop)
    block = int(edges.block[rows.start])
    address, size = int(columns.block[block]), int(unit.graph.blocks.size[block])
    cells = []
    for side in (ours, theirs):
        filled = Filled(
            np.frombuffer(unit.graph.content(block), np.uint8),
            np.frombuffer(side.read(address, size), np.uint8),
            edges.offset[rows_],
            address + edges.offset[rows_],
            edges.kind[rows_],
            edges.addend[rows_],
            edges.target[rows_].astype(np.int64),
        )
        found = machine_of("aarch64").read_fields(filled)
        counted = np.where(found.form == Form.CELL, filled.place, 0)
        is_cell = np.isin(found.form, (Form.CELL_ADDRESS, Form.CELL)) & (FIELD_BITS[filled.kind] != -1)
        cells.append(np.where(is_cell, found.number - filled.addend + counted, -1))
    for row in np.flatnonzero((cells[0] != -1) & (cells[1] != -1)).tolist():
        if ours.read(int(cells[0][row]), 8) == theirs.read(int(cells[1][row]), 8):
            yield int(edges.offset[rows_][row]), int(FIELD_BITS[edges.kind[rows_][row]])


def link_with(
    linker: Sequence[str],
    ours: Linked,
    objects: Sequence[Path],
    folder: Path,
    around: Surroundings,
) -> LinkerOutput:
    """The objects of `ours`, one a unit, linked at the places of its layout."""
    machine = ours.units[0].graph.machine
    plain = [_without_merging(path, folder / f"plain{number}.o", machine) for number, path in enumerate(objects)]
    script, output = folder / "place.ld", folder / "oracle.elf"
    script.write_text(_script(ours, plain, around))
    symbols = [f"--defsym={name}={value:#x}" for name, value in around.symbols.items()]
    options = ["--no-relax", "--build-id=none", "-e", "0", "-z", "norelro", "-T", script, *symbols]
    command = [*linker, *options, *plain, *around.objects, "-o", output]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return LinkerOutput(output)


def _without_merging(path: Path, plain: Path, machine: str) -> Path:
    with path.open("rb") as file:
        rows = [row for row in ELFFile(file).iter_sections() if row["sh_flags"] & 0x10]
        names = dict.fromkeys((row.name, bool(row["sh_flags"] & 2)) for row in rows)
    if not names:
        return path
    flags = [
        f"--set-section-flags={name}={'alloc,readonly,data' if loaded else 'debug,readonly'}" for name, loaded in names
    ]
    objcopy = "objcopy" if machine == "x86_64" else "aarch64-linux-gnu-objcopy"
    subprocess.run([objcopy, *flags, path, plain], check=True)
    return plain


def _script(ours: Linked, objects: Sequence[Path], around: Surroundings) -> str:
    # One output section for each input section, where layout put its blocks; they keep their distances.
    lines = []
    for number, (unit, columns, path) in enumerate(zip(ours.units, ours.layout.units, objects, strict=True)):
        for index, base in _section_bases(unit.graph, columns, unit.carried):
            name = unit.graph.sections[index].name
            lines.append(f"  .u{number}s{index} {base:#x} : {{ {path}({name}) }}")
    ends = {protection: (end + 0x2FFF) & -0x1000 for protection, end in ours.layout.ends().items()}
    bases = {columns.got_base for columns in ours.layout.units} - {UNBOUND}
    got = min(bases, default=max(ends.values()))
    lines += [
        f"  .common {max(ends.values()) + 0x10_0000:#x} : {{ *(COMMON) }}",
        f"  .got {got:#x} : {{ *(.got.plt) *(.got) }}",
        f"  .eh_frame {max(ends.values()) + 0x20_0000:#x} : {{ *(.eh_frame) }}",
        *(f"  {name} {address:#x} : {{ *({name}) }}" for name, address in around.sections.items()),
        "  /DISCARD/ : { *(.comment) *(.note*) *(.llvm*) }",
    ]
    return "SECTIONS {\n" + "\n".join(lines) + "\n}\n"


def _section_bases(graph: LinkGraph, columns: UnitLayout, carried: Sequence[int]) -> list[tuple[int, int]]:
    blocks = np.asarray(carried)
    pairs = np.stack([graph.blocks.section[blocks], columns.block[blocks] - graph.blocks.offset[blocks]], axis=1)
    found = np.unique(pairs, axis=0)
    sections, count = np.unique(found[:, 0], return_counts=True)
    apart = [graph.sections[index].name for index in sections[count > 1].tolist()]
    assert apart == [], f"{graph.path}: blocks of {apart} were moved apart"
    return [(int(index), int(base)) for index, base in found.tolist()]
