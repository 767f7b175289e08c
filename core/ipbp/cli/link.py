"""`ipbp link NEW.o... --image EXE -o patch.elf`: what a patch of these objects is, with no process.

Exit status: 0 linked, 3 refused, 2 usage; errors are raised.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ipbp.arch.machines import machine_of
from ipbp.cli.diff import file_content
from ipbp.errors import IpbpError, Refusal, Refused, raise_all
from ipbp.formats.elf_object import read_object
from ipbp.graph.layout import Layout, Slot, Stub
from ipbp.graph.model import BlockKind
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.pipeline.link import link
from ipbp.stages.arena import PAGE
from ipbp.stages.stubs import SLOT_SIZE

LINKED, REFUSED = 0, 3
"""Exit statuses."""


def add_parser(subparsers: Any) -> None:
    """Add `link` to the parsers of the `ipbp` command."""
    parser = subparsers.add_parser(
        "link",
        help="link object files against a program's file, with no process",
        description="Link everything that the objects define near a program, at its link addresses. Other names mean "
        "what the program defines, or its PLT stubs for what it imports. The result is an ELF file as a patch is one, "
        "for objdump, readelf and comparison with other linkers.",
    )
    parser.add_argument("objects", type=Path, nargs="+", metavar="NEW.o")
    parser.add_argument("--image", type=Path, required=True, metavar="EXE", help="the linked program or library")
    parser.add_argument("--base", type=_page, metavar="ADDR", help="where the result starts (near the image)")
    parser.add_argument(
        "--define", type=_definition, action="append", default=[], metavar="SYMBOL=ADDR", help="what a name means"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="patch.elf")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Link, and print what became of it; the exit status."""
    try:
        units, placed = _link(arguments)
    except Refused as refused:
        rows = {"outcome": "refused", "refusals": [refusal.to_json() for refusal in refused.refusals]}
        print(json.dumps(rows) if arguments.json else "\n".join(["not linked:", *map(str, refused.refusals)]))
        return REFUSED
    tables, output = _tables(units, placed), str(arguments.output)
    if arguments.json:
        print(json.dumps({"outcome": "linked", "output": output, **tables.to_json(), "refusals": []}))
    else:
        print("\n".join([f"linked {output}: {len(tables.blocks)} blocks", *tables.to_lines()]))
    return LINKED


def _link(arguments: argparse.Namespace) -> tuple[Sequence[Unit], Layout]:
    graphs, refusals = [], list[Refusal]()
    for path in arguments.objects:
        try:
            graphs.append(read_object(file_content(path), str(path)))
        except Refused as refused:
            refusals += refused.refusals
    raise_all(refusals)
    try:
        return link(graphs, arguments.image, arguments.output, arguments.base, dict(arguments.define))
    except OSError as error:
        raise IpbpError("output-unwritable", f"{arguments.output}: {error}", "Name another file.") from error


@dataclass(frozen=True, slots=True)
class Block:
    """A block of the result; `section` and `file` as they were in the object."""

    address: int
    size: int
    kind: str
    name: str
    section: str
    file: str


@dataclass(frozen=True, slots=True)
class Tables:
    """What lies where. `cells`: (address, content or None where an indirect function's resolver decides, name)."""

    blocks: tuple[Block, ...]
    stubs: tuple[Stub, ...]
    cells: tuple[Slot, ...]
    stub_size: int

    def to_json(self) -> dict[str, Any]:
        cells = [
            {"address": cell.address, "content": None if cell.value == UNBOUND else cell.value, "name": cell.name}
            for cell in self.cells
        ]
        stubs = [{"address": stub.address, "cell": stub.slot, "name": stub.name} for stub in self.stubs]
        return {"blocks": [asdict(block) for block in self.blocks], "stubs": stubs, "cells": cells}

    def to_lines(self) -> Iterator[str]:
        for block in self.blocks:
            yield f"  {block.address:#14x} {block.size:7}  {block.kind:6}  {block.name}  ({block.file})"
        for stub in self.stubs:
            yield f"  {stub.address:#14x} {self.stub_size:7}  stub    {stub.name}"
        for cell in self.cells:
            content = f"by resolver {cell.resolver:#x}" if cell.value == UNBOUND else f"{cell.value:#x}"
            yield f"  {cell.address:#14x} {SLOT_SIZE:7}  cell    {cell.name} = {content}"


def _tables(units: Sequence[Unit], placed: Layout) -> Tables:
    blocks = [
        Block(
            int(columns.block[block]),
            int(unit.graph.blocks.size[block]),
            BlockKind(unit.graph.blocks.kind[block]).name.lower(),
            unit.graph.block_name(block),
            unit.graph.sections[int(unit.graph.blocks.section[block])].name,
            unit.name,
        )
        for unit, columns in zip(units, placed.units, strict=True)
        for block in unit.carried.tolist()
    ]
    size = machine_of(units[0].graph.machine).stub_size
    return Tables(tuple(sorted(blocks, key=lambda block: block.address)), placed.stubs, placed.slots, size)


def _page(text: str) -> int:
    address = _address(text)
    if address % PAGE or address < PAGE:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of {PAGE:#x}")
    return address


def _definition(text: str) -> tuple[str, int]:
    name, equals, address = text.rpartition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text}: expected SYMBOL=ADDR")
    return name, _address(address)


def _address(text: str) -> int:
    try:
        address = int(text, 0)
    except ValueError:
        address = -1
    if not 0 <= address < 1 << 63:
        raise argparse.ArgumentTypeError(f"{text} is not an address")
    return address
