"""The instructions of a function as words that can be compared with those of another function.

Where code lies, how large its frame is and how the compiler numbers what has no name differ between two compiles of
one source, and are left out; what it calls, which constants it uses and what it does with them stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from ipbp.arch.machines import machine_of
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.stages.branches import masked_code
from ipbp.stages.identity import READ_ONLY
from ipbp.stages.panic_locations import POSITION, panic_locations

_FRAME = re.compile(r"\[(r[sb]p|sp|x29)[^\]]*\]!?")
_ROOM = re.compile(r"(r?sp), (?:sp, )?#?(?:0x)?[0-9a-f]+\Z")
_JUMPS = ("j", "loop", "call", "b", "cb", "tb")
_NUMBER = re.compile(r"#\d+\}|17h[0-9a-f]{16}E$")
_PLACE = re.compile(r"#?0x[0-9a-f]+\Z")
_DEEPEST = 4

Word = tuple[int, str]
"""Offset of the instruction, and the word."""


class CodeWords:
    """The words of the functions of one graph. `names`: linkage name -> qualified name."""

    def __init__(self, graph: LinkGraph, names: Mapping[str, str]) -> None:
        self.graph, self.names = graph, names

    def block_of(self, linkage: str) -> int:
        """Of the function, or -1."""
        return self._block.get(linkage, -1)

    def of_block(self, block: int) -> list[Word]:
        """The words of one function in the order of its code."""
        graph = self.graph
        code, content, edges = masked_code(graph, block), bytes(graph.content(block)), graph.edges_of(block)
        fields = list(zip(graph.edges.offset[edges].tolist(), range(edges.start, edges.stop), strict=True))[::-1]
        words = []
        machine = machine_of(graph.machine)
        for row in machine.instructions(code):
            if machine.is_padding(content[row.offset : row.offset + row.size]):
                continue
            operands = row.operands
            if row.mnemonic.startswith(_JUMPS):
                operands = _PLACE.sub("", operands)
            targets = []
            while fields and fields[-1][0] < row.offset + row.size:
                targets.append(self._target(fields.pop()[1], block))
            plain = _ROOM.sub(r"\1", _FRAME.sub(r"[\1]", operands))
            words.append((row.offset, " ".join([row.mnemonic, plain, *targets])))
        return words

    @cached_property
    def locations(self) -> frozenset[int]:
        return frozenset(panic_locations(self.graph).tolist())

    @cached_property
    def _block(self) -> dict[str, int]:
        symbols = self.graph.symbols
        rows = self.graph.blocks.anchor[self.graph.blocks.kind == BlockKind.CODE]
        return dict(zip((symbols.name[row] for row in rows.tolist()), symbols.block[rows].tolist(), strict=True))

    def _target(self, edge: int, home: int, depth: int = 0) -> str:
        """What a fixup leads to: a name without numbers, or the content where there is no name."""
        graph = self.graph
        symbol = int(graph.edges.target[edge])
        name, block = graph.symbols.name[symbol], int(graph.symbols.block[symbol])
        if block == home:
            return "here"
        addend = int(graph.edges.addend[edge])
        if name and not (block >= 0 and graph.blocks.kind[block] in READ_ONLY):
            return f"{_NUMBER.sub('', self.names.get(name, name))}{addend:+}"
        if block < 0 or depth == _DEEPEST:
            return ""
        content = bytearray(masked_code(graph, block)) if graph.blocks.kind[block] != BlockKind.BSS else bytearray()
        if block in self.locations:
            content[POSITION] = b""
        rows = graph.edges_of(block)
        inner = [self._target(row, block, depth + 1) for row in range(rows.start, rows.stop)]
        return f"<{bytes(content)!r} {inner}>{addend:+}"


def likeness(one: Sequence[str], other: Sequence[str]) -> float:
    """From 0 to 1, the share of words that both have; 1 only when both are the same words in the same order."""
    if list(one) == list(other):
        return 1.0
    shared = (Counter(one) & Counter(other)).total()
    return min(2 * shared / max(len(one) + len(other), 1), 0.999)
