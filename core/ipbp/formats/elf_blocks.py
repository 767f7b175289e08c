"""Where an object's sections are cut into blocks.

Named functions and variables are cut out at their symbols and sizes; two symbols whose extents overlap stay
together, because code may fall from one into the other. Mergeable sections are cut at their elements (gABI,
SHF_MERGE). What is left has no names: string literals, constants and jump tables that gcc puts in a shared
`.rodata`. It is cut where the object takes an address, for an address is the start of something. Fill between
named things (nops in code, zeros in data) belongs to nothing.

Places are keys, `section << 40 | offset`, so that one sorted column holds the whole file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ipbp.arch.machines import machine_of
from ipbp.formats.elf_file import SHF_MERGE, SHF_STRINGS, SHT_NOBITS, ElfFile, ElfSections, malformed
from ipbp.graph.model import I64, U8, BlockKind
from ipbp.graph.rows import ByteRows, distinct, intern, ragged

SECTION_SHIFT = 40
NOT_PLACED = 255
"""In a placement column: this section makes no blocks."""


@dataclass(frozen=True)
class Spans:
    """Blocks to be, ascending: `start` and `end` are keys of the same section; `named`: a symbol starts it."""

    start: I64
    end: I64
    named: npt.NDArray[np.bool_]

    def find(self, keys: I64) -> I64:
        """The span that each key is in. A key in fill or past a section's end belongs to the span before it, one
        before the first span of its section to that one. -1: its section has no span."""
        section = np.minimum(keys >> SECTION_SHIFT, len(self._first) - 2)
        row = self._first[section]
        count = self._first[section + 1] - row
        # Most sections are one span when each function has a section of its own.
        several = np.flatnonzero(count > 1)
        found = np.searchsorted(self.start, keys[several], side="right") - 1
        row[several] = np.maximum(row[several], found)
        row[count == 0] = -1
        return np.asarray(row)

    @cached_property
    def _first(self) -> I64:
        # For each section its first span; one row more, and one for all sections behind the last that has spans.
        section = self.start >> SECTION_SHIFT
        count = np.bincount(section, minlength=1)
        return np.concatenate(([0], np.cumsum(count), [len(section)]))


def key(section: I64, offset: I64) -> I64:
    """The key of each place. Offsets before a section's start or past its end are clamped by the caller."""
    result: I64 = (section << SECTION_SHIFT) + offset
    return result


def cut(
    file: ElfFile,
    placement: U8,
    symbol_start: I64,
    symbol_size: I64,
    cuts: I64,
    fixups: I64,
    touched: I64,
    homes: I64,
) -> Spans:
    """All spans of the sections that `placement` gives a block kind.

    `symbol_start`, `symbol_size`: keys and sizes of the symbols that start blocks. `cuts`: keys whose address is
    taken. `fixups`: sorted keys of all fields. `touched`: sorted keys that code or data refers to in any way. `homes`:
    sections with a symbol that anything refers to, debug information too.
    """
    rows = file.sections
    placed = np.flatnonzero(placement != NOT_PLACED)
    merged: npt.NDArray[np.bool_] = mergeable(rows, placement)
    elements = _elements(file, placed[merged[placed]])
    outside = ~merged[symbol_start >> SECTION_SHIFT]
    starts, ends = _clusters(symbol_start[outside], symbol_size[outside], rows.size)
    cuts = distinct(cuts)
    cuts = cuts[~merged[cuts >> SECTION_SHIFT]]
    free = cuts[~_inside(cuts, starts, ends)]
    floor = placed << SECTION_SHIFT
    points = distinct(np.concatenate([floor, floor + rows.size[placed], starts, ends, free, elements]))
    same = (points[:-1] >> SECTION_SHIFT) == (points[1:] >> SECTION_SHIFT)
    start, end = points[:-1][same], points[1:][same]
    spans = Spans(start, end, _contains(starts, start))
    spans = _without_fill(file, placement, merged, spans, free, fixups, touched)
    return _with_empty_sections(spans, placed[rows.size[placed] == 0], symbol_start, homes)


def mergeable(rows: ElfSections, placement: U8) -> npt.NDArray[np.bool_]:
    """For each section whether it is cut at its elements and nowhere else."""
    flagged: npt.NDArray[np.bool_] = (rows.flags & np.uint64(SHF_MERGE)) != 0
    flagged &= (rows.type != SHT_NOBITS) & (placement == BlockKind.RODATA) & (rows.entry_size > 0)
    return flagged


def _clusters(start: I64, size: I64, section_size: I64) -> tuple[I64, I64]:
    """Starts and ends of runs of overlapping symbols. A run without a size reaches to the next one."""
    order = np.lexsort((-size, start))
    start, end = start[order], start[order] + size[order]
    section = start >> SECTION_SHIFT
    limit = (section << SECTION_SHIFT) + section_size[section]
    within = start < limit
    start, end, limit = start[within], end[within], limit[within]
    if len(start) == 0:
        return start, end
    reach = np.maximum.accumulate(end)
    first = np.ones(len(start), dtype=np.bool_)
    first[1:] = (start[1:] >= reach[:-1]) & (start[1:] != start[:-1])
    rows = np.flatnonzero(first)
    starts, ends = start[rows], np.maximum.reduceat(end, rows)
    following = np.append(starts[1:], np.iinfo(np.int64).max)
    return starts, np.where(ends == starts, np.minimum(following, limit[rows]), ends)


def _elements(file: ElfFile, sections: I64) -> I64:
    """Keys of the elements of mergeable sections: NUL-terminated strings, or constants of one size."""
    rows = file.sections
    unit = rows.entry_size[sections]
    if (rows.size[sections] % unit).any():
        malformed(file.path, "a mergeable section does not hold whole elements")
    sections, unit = sections[rows.size[sections] > 0], unit[rows.size[sections] > 0]
    is_text = (rows.flags[sections] & np.uint64(SHF_STRINGS)) != 0
    parts = [_narrow_strings(file, sections[is_text & (unit == 1)])]
    for section in sections[is_text & (unit > 1)].tolist():
        parts.append(_wide_strings(file, section) + (section << SECTION_SHIFT))
    constants, width = sections[~is_text], unit[~is_text]
    owner, within = ragged(rows.size[constants] // width)
    parts.append((constants[owner] << SECTION_SHIFT) + within * width[owner])
    return np.concatenate(parts)


def _narrow_strings(file: ElfFile, sections: I64) -> I64:
    """All sections at once: -ffunction-sections makes one for the strings of each function."""
    if len(sections) == 0:
        return sections
    start = file.sections.start[sections]
    end = start + file.sections.size[sections]
    lowest = int(start.min())
    zeros = np.flatnonzero(file.octets[lowest : int(end.max())] == 0) + lowest
    first, last = np.searchsorted(zeros, start), np.searchsorted(zeros, end)
    if (last == first).any() or (zeros[last - 1] != end - 1).any():
        malformed(file.path, "the last string of a section does not end")
    # A string starts behind every NUL but the last one of its section.
    owner, within = ragged(last - 1 - first)
    offset = zeros[first[owner] + within] + 1 - start[owner]
    keys = (sections[owner] << SECTION_SHIFT) + offset
    result: I64 = np.concatenate([sections << SECTION_SHIFT, keys])
    return result


def _wide_strings(file: ElfFile, section: int) -> I64:
    unit = int(file.sections.entry_size[section])
    units = np.frombuffer(file.section_content(section), np.uint8).reshape(-1, unit)
    ends = np.count_nonzero(units, axis=1) == 0
    if not ends[-1]:
        malformed(file.path, "the last string of a section does not end")
    result: I64 = np.append(0, np.flatnonzero(ends[:-1]) + 1) * unit
    return result


def _without_fill(
    file: ElfFile,
    placement: U8,
    merged: npt.NDArray[np.bool_],
    spans: Spans,
    cuts: I64,
    fixups: I64,
    touched: I64,
) -> Spans:
    section = spans.start >> SECTION_SHIFT
    doubtful = ~spans.named & ~merged[section] & ~_contains(cuts, spans.start)
    doubtful &= spans.end - spans.start < np.minimum(file.sections.alignment[section], 4096)
    doubtful &= _count_within(fixups, spans) == 0
    doubtful &= _count_within(touched, spans) == 0
    keep = np.ones(len(section), dtype=np.bool_)
    keep[doubtful] = ~_are_fill(file, placement, spans.start[doubtful], spans.end[doubtful])
    # A section that is nothing but fill stays one block: something may still point at it.
    alone = np.bincount(section[keep], minlength=len(placement)) == 0
    keep |= alone[section]
    return Spans(spans.start[keep], spans.end[keep], spans.named[keep])


def _are_fill(file: ElfFile, placement: U8, starts: I64, ends: I64) -> npt.NDArray[np.bool_]:
    """For each stretch whether it is nops in code, zeros elsewhere."""
    section = starts >> SECTION_SHIFT
    at = file.sections.start[section] + (starts & ((1 << SECTION_SHIFT) - 1))
    fill: npt.NDArray[np.bool_] = file.sections.type[section] == SHT_NOBITS
    is_code = placement[section] == BlockKind.CODE
    for wanted, rule in ((is_code, machine_of(file.machine).is_padding), (~is_code, _is_zero)):
        rows = np.flatnonzero(wanted & ~fill)
        stretches = ByteRows(file.octets, at[rows], (ends - starts)[rows])
        # Thousands of stretches are a few different ones.
        (number,) = intern(stretches)
        some = distinct(number)
        answer = np.array([rule(stretches.of(row)) for row in some.tolist()], dtype=np.bool_)
        fill[rows] = answer[np.searchsorted(some, number)]
    return fill


def _is_zero(content: bytes) -> bool:
    return not any(content)


def _with_empty_sections(spans: Spans, empty: I64, symbol_start: I64, homes: I64) -> Spans:
    """A block of no bytes for every empty section that is referred to, so that the reference has a target."""
    wanted = np.isin(empty, np.concatenate([symbol_start >> SECTION_SHIFT, homes]))
    extra = empty[wanted] << SECTION_SHIFT
    if len(extra) == 0:
        return spans
    start = np.concatenate([spans.start, extra])
    order = np.argsort(start, kind="stable")
    end = np.concatenate([spans.end, extra])[order]
    named = np.concatenate([spans.named, np.isin(extra, symbol_start)])[order]
    return Spans(start[order], end, named)


def _inside(points: I64, starts: I64, ends: I64) -> npt.NDArray[np.bool_]:
    if len(starts) == 0:
        return np.zeros(len(points), dtype=np.bool_)
    row = np.searchsorted(starts, points, side="right") - 1
    result: npt.NDArray[np.bool_] = (row >= 0) & (points < ends[np.maximum(row, 0)])
    return result


def _contains(ordered: I64, wanted: I64) -> npt.NDArray[np.bool_]:
    if len(ordered) == 0:
        return np.zeros(len(wanted), dtype=np.bool_)
    row = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    result: npt.NDArray[np.bool_] = ordered[row] == wanted
    return result


def _count_within(points: I64, spans: Spans) -> I64:
    result: I64 = np.searchsorted(points, spans.end) - np.searchsorted(points, spans.start)
    return result
