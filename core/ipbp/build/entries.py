"""Which entries of a compilation database made the running image.

A database speaks of a whole source tree: other programs, tests, the same source compiled twice for a library and its
static twin. The image's debug information names its units; where one source still has several entries, the path of
the object tells the target, or gcc's record of its options tells the entry. What no evidence decides is kept: only
the comparison with memory can say then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ipbp.build.command import Command, split_compiler
from ipbp.build.producer import SourceUnit


def entries_of_image(rows: Iterable[Command], units: Sequence[SourceUnit], executable: Path) -> tuple[Command, ...]:
    """The entries, in their order, that compile the image's units. All sources count when `units` is empty."""
    ours = _of_units(rows, units) if units else tuple(rows)
    return _best_recorded(_of_target(ours, executable), units)


def _of_units(rows: Iterable[Command], units: Sequence[SourceUnit]) -> tuple[Command, ...]:
    there = {os.path.realpath(unit.source) for unit in units if unit.source.is_absolute()}
    # With a prefix map (-ffile-prefix-map, as distributions use) the folder in the debug information is not the true
    # one, and only the end of the path can be compared.
    ends: dict[str, list[tuple[str, ...]]] = {}
    for unit in units:
        if not unit.source.is_absolute() or not unit.source.exists():
            tail = _tail(unit.name)
            ends.setdefault(tail[-1] if tail else "", []).append(tail)
    return tuple(
        row
        for row in rows
        if os.path.realpath(row.source) in there
        or any(row.source.parts[-len(tail) :] == tail for tail in ends.get(row.source.name, ()))
    )


def _tail(name: str) -> tuple[str, ...]:
    """The parts of a path that are surely below the project."""
    return tuple(part for part in Path(os.path.normpath(name)).parts if part not in ("..", "/"))


def _of_target(rows: tuple[Command, ...], executable: Path) -> tuple[Command, ...]:
    """Of a source with several entries those of this target, where the object's path tells (CMake's `name.dir`,
    meson's `name.p`)."""
    folders = {f"{executable.name}.dir", f"{executable.name}.p"}

    def is_of_target(row: Command) -> bool:
        return row.output is not None and not folders.isdisjoint(row.output.parts)

    decided = {row.source for row in rows if is_of_target(row)}
    return tuple(row for row in rows if row.source not in decided or is_of_target(row))


def _best_recorded(rows: tuple[Command, ...], units: Sequence[SourceUnit]) -> tuple[Command, ...]:
    """Of a source with several entries those whose options gcc recorded best (-fPIC of a shared twin, say)."""
    count: dict[Path, int] = {}
    for row in rows:
        count[row.source] = count.get(row.source, 0) + 1
    if len(count) == len(rows):
        return rows
    recorded = {
        os.path.realpath(u.source): _code_options(u.producer.split()) for u in units if u.producer[:4] == "GNU "
    }
    best: dict[Path, list[Command]] = {}
    for source in [source for source, number in count.items() if number > 1 and os.path.realpath(source) in recorded]:
        wanted = recorded[os.path.realpath(source)]
        entries = [row for row in rows if row.source == source]
        misfit = [len(wanted ^ _code_options(split_compiler(row)[1])) for row in entries]
        best[source] = [row for row, number in zip(entries, misfit, strict=True) if number == min(misfit)]
    return tuple(row for row in rows if row.source not in best or row in best[row.source])


def _code_options(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word for word in words if word.startswith(("-O", "-f", "-m", "-std=")))
