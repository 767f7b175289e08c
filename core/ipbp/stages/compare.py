"""Which functions and variables differ between two objects, and why.

Two blocks are the same when their bytes are, fixup fields masked, and their edges mean the same things: columns
over the whole object. Only what differs there is decoded, because assemblers encode one program in several ways
(`stages.same_code`). A function and its split-off cold part are one. A function that uses a read-only table whose
content changed has changed too: it must see the new table.

State is never replaced: a variable with another initialiser is told, one with another size or kind is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipbp.errors import Refusal
from ipbp.graph.columns import ColumnEnum
from ipbp.graph.model import COMMON, I32, I64, U8, BlockKind, LinkGraph
from ipbp.graph.rows import is_one_of, ragged, unequal
from ipbp.stages.branches import with_local_branches
from ipbp.stages.correlate import UNPAIRED, Correlation
from ipbp.stages.exception_tables import with_changed_tables, with_other_tables
from ipbp.stages.identity import READ_ONLY
from ipbp.stages.meaning import Meaning, again, meanings
from ipbp.stages.same_code import first_difference
from ipbp.stages.split_variables import split_variables
from ipbp.stages.virtual_tables import has_same_slots, is_virtual_table
from ipbp.stages.wording import constant_differs, difference_in_words, size_in_words

_MARK = b".cold"
_REFERENCE = "DW.ref."  # compilers' own cells with the address of what follows, for unwind tables
_PART = re.compile(r"\.cold(\.\d+)?$")
_STATE = {
    BlockKind.DATA: "writable",
    BlockKind.BSS: "writable",
    BlockKind.RODATA: "read-only",
    BlockKind.RELRO: "read-only",
    BlockKind.TLS_DATA: "thread-local",
    BlockKind.TLS_BSS: "thread-local",
    BlockKind.CODE: "code",
    BlockKind.INIT: "run at the start",
    BlockKind.TLS_DESCRIPTORS: "thread-local",
}


class Status(ColumnEnum):
    SAME = 0
    CHANGED = 1
    NEW = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """`status`: of each new block. `reason`: words for each new block that is not SAME. `old_block`: for each new
    block its counterpart or UNPAIRED. `removed`: old blocks that had a name and have no counterpart. `notes`:
    sentences about what will not be applied. `refusals`: what forbids the whole edit. `tables`: tables of virtual
    functions in which other functions stand; they are the SAME ones otherwise.
    """

    status: U8
    reason: Mapping[int, str]
    old_block: I32
    removed: tuple[int, ...]
    notes: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    tables: tuple[int, ...] = ()


def compare(old: LinkGraph, new: LinkGraph, correlation: Correlation) -> Comparison:
    """The judgement on every block of `new`, under one correlation of the two graphs."""
    before, after = meanings(old, new, correlation)
    status = np.full(len(new.blocks), Status.SAME, dtype=np.uint8)
    status[correlation.block == UNPAIRED] = Status.NEW
    reason = dict.fromkeys(np.flatnonzero(status == Status.NEW).tolist(), "new")
    different = _different(before, after, correlation)
    is_code = new.blocks.kind[different] == BlockKind.CODE
    found = _changed_code(before, after, correlation, different[is_code].tolist())
    tables = _virtual_tables(old, new, correlation, different[~is_code].tolist())
    others = [block for block in different[~is_code].tolist() if block not in tables]
    refusals, notes = _judge_data(old, new, correlation, others, found)
    for block in with_other_tables(old, new, correlation).tolist():
        found.setdefault(block, "its exception table differs")
    for block, words in found.items():
        status[block], reason[block] = Status.CHANGED, words
    _spread_constants(new, status, reason)
    if len(old.exception_tables) or len(new.exception_tables):
        for block in with_changed_tables(old, new, correlation, status != Status.SAME).tolist():
            if status[block] == Status.SAME:
                status[block], reason[block] = Status.CHANGED, "its exception table differs"
    join_parts(new, status, reason)
    removed = _removed(old, correlation)
    notes += _compiler_note(old, new)
    refusals += _common_refusals(old, new, correlation)
    refusals += split_variables(old, removed, new, np.flatnonzero(status == Status.NEW))
    return Comparison(status, reason, correlation.block, removed, tuple(notes), tuple(refusals), tables)


def part_of(name: str) -> str | None:
    """The function that this is a cold part of, or None."""
    match = _PART.search(name)
    return name[: match.start()] if match else None


def _different(before: Meaning, after: Meaning, correlation: Correlation) -> I64:
    """New blocks known by name whose bytes or edges are not those of their counterpart."""
    rows = np.flatnonzero((correlation.block >= 0) & (correlation.new_colour < 0))
    different: I64 = rows[~alike(before, correlation.block[rows].astype(np.int64), after, rows, correlation)]
    return different


def alike(before: Meaning, pair: I64, after: Meaning, rows: I64, correlation: Correlation) -> npt.NDArray[np.bool_]:
    """For each of these old blocks and the new one beside it, whether their bytes and their edges are the same."""
    old, new = before.graph, after.graph
    old_count, new_count = np.diff(old.first_edge)[pair], np.diff(new.first_edge)[rows]
    same: npt.NDArray[np.bool_] = (old.blocks.size[pair] == new.blocks.size[rows]) & (old_count == new_count)
    same &= _kinds_agree(old, new, rows, pair)
    one, other = correlation.old_masked, correlation.new_masked
    same &= one.length[pair] == other.length[rows]
    alike = np.flatnonzero(same)
    same[alike[unequal(one.take(pair[alike]), other.take(rows[alike]))]] = False
    index = np.flatnonzero(same)
    count = new_count[index]
    owner, within = ragged(count)
    old_row = old.first_edge[pair[index]][owner] + within
    new_row = new.first_edge[rows[index]][owner] + within
    bad = ~_edges_agree(before, old_row, after, new_row, correlation)
    same[index[owner[bad]]] = False
    return same


def _kinds_agree(old: LinkGraph, new: LinkGraph, rows: I64, pair: I64) -> npt.NDArray[np.bool_]:
    """Whether kinds are those of one class; zeroed and initialised data have different bytes to compare."""
    fold = np.arange(256)
    fold[BlockKind.RELRO] = BlockKind.RODATA
    agree: npt.NDArray[np.bool_] = fold[old.blocks.kind[pair]] == fold[new.blocks.kind[rows]]
    return agree


def _edges_agree(
    before: Meaning, old_row: I64, after: Meaning, new_row: I64, correlation: Correlation
) -> npt.NDArray[np.bool_]:
    old, new = before.graph.edges, after.graph.edges
    same_field = (old.offset[old_row] == new.offset[new_row]) & (old.kind[old_row] == new.kind[new_row])
    result: npt.NDArray[np.bool_] = before.token[old_row] == after.token[new_row]
    result &= before.value[old_row] == after.value[new_row]
    doubtful = np.flatnonzero(same_field & ~result)
    result[doubtful] = same_place(before, old_row[doubtful], after, new_row[doubtful], correlation)
    result &= same_field
    return result


def same_place(
    before: Meaning, old_row: I64, after: Meaning, new_row: I64, correlation: Correlation
) -> npt.NDArray[np.bool_]:
    """Whether an old edge leads where the counterpart of the new edge's target was in the old object.

    `array + 40` and "the variable behind the array" are one place when an object has one `.data`; the reader can
    only name one of the two.
    """
    old, new = before.graph, after.graph
    old_home = old.symbols.block[old.edges.target[old_row]]
    new_home = new.symbols.block[new.edges.target[new_row]]
    known = (old_home >= 0) & (new_home >= 0)
    expected = np.where(known, correlation.block[np.maximum(new_home, 0)], UNPAIRED)
    named = np.where(known, correlation.new_colour[np.maximum(new_home, 0)] < 0, False)
    known &= (expected >= 0) & named
    if not known.any():
        return np.zeros(len(old_row), dtype=np.bool_)
    old_home, expected = np.maximum(old_home, 0), np.maximum(expected, 0)
    actual_place = old.blocks.offset[old_home] + before.value[old_row]
    expected_place = old.blocks.offset[expected] + after.value[new_row]
    same = (old.blocks.section[old_home] == old.blocks.section[expected]) & (actual_place == expected_place)
    result: npt.NDArray[np.bool_] = known & same
    return result


def _changed_code(before: Meaning, after: Meaning, correlation: Correlation, blocks: list[int]) -> dict[int, str]:
    """Reasons for those functions that still differ when their instructions are compared."""
    pairs = [(int(correlation.block[block]), block) for block in blocks]
    before = again(before, with_local_branches(before.graph, [o for o, _ in pairs]))
    after = again(after, with_local_branches(after.graph, blocks))
    changed = {}
    for old_block, block in pairs:
        if before.graph.blocks.kind[old_block] != BlockKind.CODE:
            changed[block] = "was not a function"
            continue
        difference = first_difference(before, old_block, after, block)
        if difference is not None:
            words = difference_in_words(before, after, difference)
            changed[block] = words + size_in_words(before.graph, old_block, after.graph, block)
    return changed


def _virtual_tables(old: LinkGraph, new: LinkGraph, correlation: Correlation, blocks: list[int]) -> tuple[int, ...]:
    """Of these blocks the tables of virtual functions that are as they were but for the functions."""
    return tuple(
        block
        for block in blocks
        if is_virtual_table(new.block_name(block)) and has_same_slots(old, int(correlation.block[block]), new, block)
    )


def _judge_data(
    old: LinkGraph, new: LinkGraph, correlation: Correlation, blocks: list[int], changed: dict[int, str]
) -> tuple[list[Refusal], list[str]]:
    """Refusals and notes for variables; those whose initial content changed are added to `changed`."""
    refusals, notes = [], []
    for block in blocks:
        before = int(correlation.block[block])
        old_kind, kind = BlockKind(old.blocks.kind[before]), BlockKind(new.blocks.kind[block])
        name = new.block_name(block)
        if _STATE[old_kind] != _STATE[kind]:
            refusals.append(_kind_changed(name, _STATE[old_kind], _STATE[kind], new.path))
            continue
        sizes = int(old.blocks.size[before]), int(new.blocks.size[block])
        if kind in READ_ONLY:
            changed[block] = constant_differs(old, before, new, block)
        elif sizes[0] != sizes[1]:
            refusals.append(_size_changed(name, *sizes, new.path))
        elif not name.startswith(_REFERENCE) and _initial_values_differ(old, before, new, block, correlation):
            changed[block] = "another initial value"
            notes.append(f"the new initial value of '{name}' is not applied: the variable keeps what it holds")
    return refusals, notes


def _initial_values_differ(old: LinkGraph, before: int, new: LinkGraph, block: int, correlation: Correlation) -> bool:
    """Zeroed and initialised data may be equal: zeros are zeros. Fixups on either side mean a difference here,
    because blocks with equal ones are not asked."""
    one, other = correlation.old_masked.of(before), correlation.new_masked.of(block)
    fixups = old.first_edge[before + 1] - old.first_edge[before] + new.first_edge[block + 1] - new.first_edge[block]
    return one.rstrip(b"\0") != other.rstrip(b"\0") or bool(fixups)


def join_parts(new: LinkGraph, status: U8, reason: dict[int, str]) -> None:
    """A function and its cold parts share one judgement, whatever made the one or the other a changed one."""
    for block, whole in _parts(new):
        name, parent = new.block_name(block), new.block_name(whole)
        if status[block] != Status.SAME and status[whole] == Status.SAME:
            status[whole], reason[whole] = Status.CHANGED, f"its part {name} differs: {reason[block]}"
        elif status[whole] != Status.SAME and status[block] == Status.SAME:
            status[block], reason[block] = Status.CHANGED, f"{parent} differs"


def _parts(graph: LinkGraph) -> list[tuple[int, int]]:
    """(part, function): the blocks that are split-off parts of a function, with the function's block."""
    names = graph.symbols.name.take(graph.blocks.anchor)
    wholes = [(row, whole) for row in names.containing(_MARK).tolist() if (whole := part_of(names[row])) is not None]
    found = names.rows_of([whole for _row, whole in wholes])
    return [(row, block) for (row, _), block in zip(wholes, found.tolist(), strict=True) if block >= 0]


def _spread_constants(new: LinkGraph, status: U8, reason: dict[int, str]) -> None:
    """Read-only data that points at a changed constant must be made anew, and code that uses it must be told."""
    kinds = new.blocks.kind
    read_only = is_one_of(kinds, READ_ONLY)
    stale = np.flatnonzero(read_only & (status == Status.CHANGED))
    home = new.symbols.block[new.edges.target]
    while len(stale):
        rows = np.flatnonzero(np.isin(home, stale))
        touched = [
            (int(new.edges.block[row]), int(home[row]))
            for row in rows
            if status[new.edges.block[row]] == Status.SAME
            and (read_only[new.edges.block[row]] or kinds[new.edges.block[row]] == BlockKind.CODE)
        ]
        for block, constant in touched:
            status[block] = Status.CHANGED
            reason.setdefault(block, f"uses the constant '{new.block_name(constant)}', which differs")
        stale = np.array(sorted({block for block, _ in touched if read_only[block]}), dtype=np.int64)


def _removed(old: LinkGraph, correlation: Correlation) -> tuple[int, ...]:
    kept = np.zeros(len(old.blocks), dtype=np.bool_)
    kept[correlation.block[correlation.block >= 0]] = True
    gone = np.flatnonzero(~kept & (correlation.old_colour < 0))
    return tuple(gone[old.symbols.name.take(old.blocks.anchor[gone]).are_given()].tolist())


def _compiler_note(old: LinkGraph, new: LinkGraph) -> list[str]:
    one, other = (
        {bytes(side.content).strip(b"\0") for side in graph.side if side.name == ".comment"} for graph in (old, new)
    )
    if not one or not other or one == other:
        return []
    said = [b" ".join(sorted(names)).replace(b"\0", b" ").decode("utf-8", "replace") for names in (one, other)]
    return [f"another compiler made the new object: {said[0]} before, {said[1]} now"]


def _common_refusals(old: LinkGraph, new: LinkGraph, correlation: Correlation) -> list[Refusal]:
    """Tentative definitions have no block; their size is their symbol's."""
    rows = np.flatnonzero((new.symbols.block == COMMON) & (correlation.symbol >= 0))
    refusals = []
    for row in rows.tolist():
        pair = int(correlation.symbol[row])
        sizes = int(old.symbols.size[pair]), int(new.symbols.size[row])
        defined = old.symbols.block[pair] >= 0 or old.symbols.block[pair] == COMMON
        if defined and sizes[0] != sizes[1]:
            refusals.append(_size_changed(new.symbols.name[row], *sizes, new.path))
    return refusals


def _size_changed(name: str, old: int, new: int, file: str) -> Refusal:
    return Refusal(
        "data-size-changed",
        f"the variable '{name}' had {old} bytes and now has {new}",
        "Existing variables keep their place: give the larger one a new name, or restart the program.",
        name,
        file,
    )


def _kind_changed(name: str, old: str, new: str, file: str) -> Refusal:
    return Refusal(
        "data-kind-changed",
        f"'{name}' was {old} and is now {new}",
        "Give it a new name, or restart the program.",
        name,
        file,
    )
