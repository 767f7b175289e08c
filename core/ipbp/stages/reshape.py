"""The new object's code in the encoding that the linked image has.

The image may have been assembled without -ffunction-sections: jumps between functions of one section are two bytes
long there and five or six in the new object, and everything behind them moves. Where the two functions are the same
instruction by instruction but for that, the new one is rewritten to the image's layout, fixups at their new places,
so that it can be held against memory byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ipbp.arch.instructions import Instruction
from ipbp.arch.machines import Machine, machine_of
from ipbp.graph.edges import EdgeKind
from ipbp.graph.model import I64, Edges, LinkGraph, Section, SectionTable


@dataclass(frozen=True, slots=True)
class Shape:
    """A block in its other encoding: content, and per edge of the block its offset, kind and addend."""

    content: bytes
    offset: I64
    kind: I64
    addend: I64


def reshaped(graph: LinkGraph, memory: Mapping[int, bytes]) -> LinkGraph:
    """The graph with each of the blocks in `memory` in the encoding of the bytes given there, where it has the same
    instructions; blocks that have others stay as they are. Symbols and numbers stay."""
    shapes = {block: shape for block, code in memory.items() if (shape := _shape(graph, block, code))}
    return _with_shapes(graph, shapes) if shapes else graph


def _shape(graph: LinkGraph, block: int, memory: bytes) -> Shape | None:
    content, machine = bytes(graph.content(block)), machine_of(graph.machine)
    rows = graph.edges_of(block)
    edges = graph.edges
    starts = edges.offset[rows]
    offset, kind = starts.copy(), edges.kind[rows].astype(np.int64)
    addend = edges.addend[rows].copy()
    result = bytearray(memory)
    before, after = list(_real(machine, content)), list(_real(machine, memory))
    if len(before) != len(after):
        return None
    place = {one.offset: index for index, one in enumerate(before)}
    there = {other.offset: index for index, other in enumerate(after)}
    for one, other in zip(before, after, strict=True):
        inside = slice(*np.searchsorted(starts, (one.offset, one.offset + one.size)).tolist())
        held = range(inside.start, inside.stop)
        new_code = content[one.offset : one.offset + one.size]
        old_code = memory[other.offset : other.offset + other.size]
        new_width, old_width = machine.displacement_width(new_code), machine.displacement_width(old_code)
        if new_width and old_width and one.mnemonic == other.mnemonic and len(held) <= 1:
            if not held and place.get(_goes_to(one, new_code, new_width)) != there.get(
                _goes_to(other, old_code, old_width)
            ):
                return None
            for row in held:
                offset[row] = other.offset + other.size - old_width
                kind[row] = EdgeKind.PCREL8 if old_width == 1 else kind[row]
                addend[row] += new_width - old_width
            continue
        if one.size != other.size or not (held or new_code == old_code):
            return None
        for row in held:
            offset[row] = other.offset + int(starts[row]) - one.offset
        if held:
            result[other.offset : other.offset + other.size] = new_code
    return Shape(bytes(result), offset, kind, addend)


def _goes_to(row: Instruction, code: bytes, width: int) -> int:
    return row.offset + row.size + int.from_bytes(code[-width:], "little", signed=True)


def _real(machine: Machine, code: bytes) -> Iterator[Instruction]:
    """The instructions without fill."""
    rows = machine.instructions(code)
    return (row for row in rows if not machine.is_padding(code[row.offset : row.offset + row.size]))


def _with_shapes(graph: LinkGraph, shapes: Mapping[int, Shape]) -> LinkGraph:
    blocks, edges = graph.blocks, graph.edges
    section, start, size = blocks.section.copy(), blocks.offset.copy(), blocks.size.copy()
    offset, kind, addend = edges.offset.copy(), edges.kind.copy(), edges.addend.copy()
    sections = list(graph.sections)
    for block, shape in shapes.items():
        old = sections[int(blocks.section[block])]
        section[block], start[block], size[block] = len(sections), 0, len(shape.content)
        sections.append(Section(old.name, memoryview(shape.content), old.alignment, old.group))
        rows = graph.edges_of(block)
        offset[rows], kind[rows], addend[rows] = shape.offset, shape.kind, shape.addend
    return replace(
        graph,
        sections=SectionTable.of(sections),
        blocks=replace(blocks, section=section, offset=start, size=size),
        edges=Edges(edges.block, offset, kind, edges.target, addend),
    )
