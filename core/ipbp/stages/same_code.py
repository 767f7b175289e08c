"""Whether two encodings of a function are the same code.

An assembler picks the short or the long form of a jump by distances that have nothing to do with the program: the
same tail call takes two bytes inside one `.text` and five between sections, and everything behind it moves. So the
instructions are compared one by one, a branch by what it leads to, fill between them not at all. Anything that
this comparison does not understand counts as a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ipbp.arch.fields import PC_RELATIVE, WIDTH
from ipbp.arch.instructions import Instruction
from ipbp.arch.machines import Machine, machine_of
from ipbp.graph.edges import EdgeKind
from ipbp.kept import Kept
from ipbp.stages.branches import masked_code
from ipbp.stages.meaning import Meaning

_BRANCHES = (EdgeKind.BRANCH32, EdgeKind.PCREL8)
_decoded: Kept[tuple[str, bytes], list[Instruction]] = Kept(256 << 10)
"""By machine and code, 256 KB of code: the new version of one patch is the old one of the next."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first instruction that differs, `offset` in the new code. `old_edge`, `new_edge`: rows of the edges when
    only what they lead to differs, else None."""

    offset: int
    old_edge: int | None = None
    new_edge: int | None = None


def first_difference(old: Meaning, old_block: int, new: Meaning, new_block: int) -> Difference | None:
    """Where the code of two functions stops being the same, or None when it never does. Both graphs must have their
    local branches (`with_local_branches`) for these blocks."""
    before, after = _Listing(old, old_block), _Listing(new, new_block)
    for one, other in zip(before.rows, after.rows, strict=False):
        difference = _compare(before, one, after, other)
        if difference is not None:
            return difference
    if len(before.rows) != len(after.rows):
        shorter = min(len(before.rows), len(after.rows))
        return Difference(after.rows[shorter].offset if shorter < len(after.rows) else len(after.code))
    return None


def _instructions(machine: Machine, code: bytes) -> list[Instruction]:
    known = _decoded.get((machine.name, code))
    return known if known is not None else _decoded.put((machine.name, code), machine.instructions(code), len(code))


class _Listing:
    """The instructions of one function without fill, and which of them each offset begins."""

    def __init__(self, meaning: Meaning, block: int) -> None:
        self.meaning, self.block = meaning, block
        self.content = bytes(meaning.graph.content(block))
        self.code = masked_code(meaning.graph, block)
        self.machine = machine_of(meaning.graph.machine)
        self.rows: list[Instruction] = []
        self.index: dict[int, int] = {}
        for row in _instructions(self.machine, self.content):
            self.index[row.offset] = len(self.rows)
            if not self.machine.is_padding(self.content[row.offset : row.offset + row.size]):
                self.rows.append(row)
        self.index[len(self.content)] = len(self.rows)
        self.edges = self._edges_by_instruction()

    def _edges_by_instruction(self) -> Mapping[int, list[int]]:
        graph = self.meaning.graph
        rows = graph.edges_of(self.block)
        starts = np.array([row.offset for row in self.rows], dtype=np.int64)
        owner = np.searchsorted(starts, graph.edges.offset[rows], side="right") - 1
        found: dict[int, list[int]] = {}
        for edge, index in zip(range(rows.start, rows.stop), owner.tolist(), strict=True):
            found.setdefault(self.rows[index].offset if index >= 0 else -1, []).append(edge)
        return found

    def place(self, edge: int, row: Instruction) -> int:
        """How far into its target the edge leads; pc-relative fields may count from the instruction's end."""
        graph = self.meaning.graph
        value = int(self.meaning.value[edge])
        if PC_RELATIVE[graph.edges.kind[edge]] and self.machine.from_end[graph.edges.kind[edge]]:
            value += row.offset + row.size - int(graph.edges.offset[edge])
        return value

    def leads_here(self, edge: int) -> bool:
        home = int(self.meaning.graph.symbols.block[self.meaning.graph.edges.target[edge]])
        return home == self.block


def _compare(before: _Listing, one: Instruction, after: _Listing, other: Instruction) -> Difference | None:
    old_edges, new_edges = before.edges.get(one.offset, []), after.edges.get(other.offset, [])
    if len(old_edges) != len(new_edges):
        return Difference(other.offset)
    if not old_edges:
        return None if _same_bytes(before, one, after, other) else Difference(other.offset)
    old_kind = before.meaning.graph.edges.kind[old_edges[0]]
    new_kind = after.meaning.graph.edges.kind[new_edges[0]]
    is_branch = old_kind in _BRANCHES and new_kind in _BRANCHES
    if is_branch and one.mnemonic != other.mnemonic:
        return Difference(other.offset)
    if not is_branch and _code(before, one) != _code(after, other):
        return Difference(other.offset)
    for old_edge, new_edge in zip(old_edges, new_edges, strict=True):
        if not _same_edge(before, one, old_edge, after, other, new_edge, is_branch):
            return Difference(other.offset, old_edge, new_edge)
    return None


def _same_bytes(before: _Listing, one: Instruction, after: _Listing, other: Instruction) -> bool:
    old_code, new_code = _code(before, one), _code(after, other)
    width_of = before.machine.displacement_width
    old_width, new_width = width_of(old_code), width_of(new_code)
    if not old_width or not new_width:
        return old_code == new_code
    if one.mnemonic != other.mnemonic:
        return False
    old_target, new_target = _destination(old_code, one, old_width), _destination(new_code, other, new_width)
    index = before.index.get(old_target)
    return index is not None and index == after.index.get(new_target)


def _destination(code: bytes, row: Instruction, width: int) -> int:
    return row.offset + row.size + int.from_bytes(code[-width:], "little", signed=True)


def _code(listing: _Listing, row: Instruction) -> bytes:
    return listing.code[row.offset : row.offset + row.size]


def _same_edge(
    before: _Listing, one: Instruction, old_edge: int, after: _Listing, other: Instruction, new_edge: int, branch: bool
) -> bool:
    old, new = before.meaning, after.meaning
    old_row, new_row = old.graph.edges, new.graph.edges
    if not branch:
        same_field = old_row.offset[old_edge] - one.offset == new_row.offset[new_edge] - other.offset
        if not same_field or old_row.kind[old_edge] != new_row.kind[new_edge]:
            return False
    old_place, new_place = before.place(old_edge, one), after.place(new_edge, other)
    if before.leads_here(old_edge) and after.leads_here(new_edge):
        index = before.index.get(old_place)
        return index is not None and index == after.index.get(new_place)
    if old.token[old_edge] == new.token[new_edge]:
        return old_place == new_place
    return same_table(before, old_edge, after, new_edge) and old_place == new_place


def same_table(before: _Listing, old_edge: int, after: _Listing, new_edge: int) -> bool:
    """Whether both edges lead to unnamed content that is alike but for entries into these two functions, each of
    which means the same instruction: a jump table."""
    old, new = before.meaning, after.meaning
    old_home = int(old.graph.symbols.block[old.graph.edges.target[old_edge]])
    new_home = int(new.graph.symbols.block[new.graph.edges.target[new_edge]])
    if min(old_home, new_home) < 0 or not old.block[old_home] & 1 or not new.block[new_home] & 1:
        return False
    old_rows, new_rows = old.graph.edges_of(old_home), new.graph.edges_of(new_home)
    if old_rows.stop - old_rows.start != new_rows.stop - new_rows.start or old_rows.start == old_rows.stop:
        return False
    if masked_code(old.graph, old_home).rstrip(b"\0") != masked_code(new.graph, new_home).rstrip(b"\0"):
        return False
    for one, other in zip(range(old_rows.start, old_rows.stop), range(new_rows.start, new_rows.stop), strict=True):
        if old.graph.edges.kind[one] != new.graph.edges.kind[other]:
            return False
        if old.graph.edges.offset[one] != new.graph.edges.offset[other]:
            return False
        if old.token[one] != new.token[other]:
            return False
        old_place, new_place = _entry(old, one), _entry(new, other)
        if before.leads_here(one) and after.leads_here(other):
            index = before.index.get(old_place)
            if index is None or index != after.index.get(new_place):
                return False
        elif old_place != new_place:
            return False
    return True


def _entry(meaning: Meaning, edge: int) -> int:
    """The place that a table's entry means; a relative one counts from the table's start, not from itself."""
    value = int(meaning.value[edge])
    edges = meaning.graph.edges
    return value - int(edges.offset[edge]) if WIDTH[edges.kind[edge]] == 4 and PC_RELATIVE[edges.kind[edge]] else value
