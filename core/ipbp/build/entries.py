"""Which entries of a compilation database made the running image.

A database speaks of a whole source tree: other programs, tests, the same source compiled twice for a library and its
static twin. The image's debug information names its units; where one source still has several entries, the path of
the object tells the target, or gcc's record of its options tells the entry. What no evidence decides is kept: only
the comparison with memory can say then (`pipeline.order`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ipbp.build.command import Command, is_assembly, split_compiler
from ipbp.build.producer import SourceUnit

# Options that turn debug information on or off, not those that only shape it.
_DEBUG_LEVEL = re.compile(
    r"-g|-g[0-3]|-ggdb[0-3]?|-gdwarf(-[2-5])?|-gsplit-dwarf|-gline-tables-only|-gline-directives-only|-gmlt|-glldb|-gsce"
    r"|-Wa,(.*,)?(-g|--gdwarf|--gen-debug).*"
)


def entries_of_image(rows: Iterable[Command], units: Sequence[SourceUnit], executable: Path) -> tuple[Command, ...]:
    """The entries, in their order, that compile the image's units. All sources count when `units` is empty."""
    ours = _of_units(rows, units) if units else tuple(rows)
    return _best_recorded(_of_target(ours, executable), units)


def entries_outside(rows: Iterable[Command], units: Sequence[SourceUnit], executable: Path) -> tuple[Command, ...]:
    """The entries, each source once, of files that are there and that the image was not built from: added to the
    project since, renamed, or of another program. Where the paths of objects tell the target, only its own."""
    if not units:
        return ()
    every = tuple(row for row in rows if row.source.exists())
    inside = {row.source for row in _of_units(every, units)}
    others = _one_of_each_source(row for row in every if row.source not in inside)
    ours = [row for row in every if row.source in inside and _is_of_target(row, executable)]
    return tuple(row for row in others if _is_of_target(row, executable)) if ours else others


def undescribed(rows: Iterable[Command]) -> tuple[Command, ...]:
    """Of entries that no debug information names those that would not be named anyway: their command asks for none, as
    those of hand-written assembly often do. They may be of the image all the same."""
    return tuple(row for row in rows if not _asks_for_debug_information(row))


def of_files(rows: Iterable[Command], files: Collection[str]) -> tuple[Command, ...]:
    """Those that a symbol table with these names of files may be about. Compilers write the source's name into an
    object, assembly often has none (gABI, STT_FILE). All of them when the table names no file."""
    names = set(files)
    return tuple(row for row in rows if not names or row.source.name in names or is_assembly(row.source))


def _asks_for_debug_information(row: Command) -> bool:
    asks = False
    for word in split_compiler(row)[1]:
        if _DEBUG_LEVEL.fullmatch(word):
            asks = word != "-g0"  # the last one counts (GCC manual, "Debugging Options")
    return asks


def vanished_units(rows: Iterable[Command], units: Sequence[SourceUnit]) -> tuple[SourceUnit, ...]:
    """Units of the image whose source is not there any more, though its folder is: renamed, or deleted."""
    by_path, by_end = _by_path(units), _by_end(units)
    gone = [unit for unit in units if not unit.source.exists() and unit.source.parent.is_dir()]
    if not gone:
        return ()
    found = {unit for row in rows if row.source.exists() for unit in _units_of(row, by_path, by_end)}
    return tuple(unit for unit in gone if unit not in found)


def _one_of_each_source(rows: Iterable[Command]) -> tuple[Command, ...]:
    first: dict[Path, Command] = {}
    for row in rows:
        first.setdefault(row.source, row)
    return tuple(first.values())


def _of_units(rows: Iterable[Command], units: Sequence[SourceUnit]) -> tuple[Command, ...]:
    by_path, by_end = _by_path(units), _by_end(units)
    return tuple(row for row in rows if _units_of(row, by_path, by_end))


def _by_path(units: Sequence[SourceUnit]) -> dict[str, list[SourceUnit]]:
    found: dict[str, list[SourceUnit]] = {}
    for unit in units:
        if unit.source.is_absolute():
            found.setdefault(os.path.realpath(unit.source), []).append(unit)
    return found


def _by_end(units: Sequence[SourceUnit]) -> dict[str, list[tuple[tuple[str, ...], SourceUnit]]]:
    """By base name, with the end of the path: with a prefix map (-ffile-prefix-map, as distributions use) the folder
    in the debug information is not the true one, and nothing else can be compared."""
    found: dict[str, list[tuple[tuple[str, ...], SourceUnit]]] = {}
    for unit in units:
        if not unit.source.is_absolute() or not unit.source.exists():
            tail = _tail(unit.name)
            found.setdefault(tail[-1] if tail else "", []).append((tail, unit))
    return found


def _units_of(
    row: Command,
    by_path: Mapping[str, list[SourceUnit]],
    by_end: Mapping[str, list[tuple[tuple[str, ...], SourceUnit]]],
) -> list[SourceUnit]:
    """The image's units that this entry's source may be."""
    named = by_path.get(os.path.realpath(row.source), [])
    ends = by_end.get(row.source.name, ())
    return named or [unit for tail, unit in ends if row.source.parts[-len(tail) :] == tail]


def _tail(name: str) -> tuple[str, ...]:
    """The parts of a path that are surely below the project."""
    return tuple(part for part in Path(os.path.normpath(name)).parts if part not in ("..", "/"))


def _of_target(rows: tuple[Command, ...], executable: Path) -> tuple[Command, ...]:
    """Of a source with several entries those of this target, where the object's path tells (CMake's `name.dir`,
    meson's `name.p`, automake's `name-source.o`)."""
    decided = {row.source for row in rows if _is_of_target(row, executable)}
    return tuple(row for row in rows if row.source not in decided or _is_of_target(row, executable))


def _is_of_target(row: Command, executable: Path) -> bool:
    if row.output is None:
        return False
    folders = {f"{executable.name}.dir", f"{executable.name}.p"}
    own_name = f"{executable.name}-{row.source.stem}.o"
    return row.output.name == own_name or not folders.isdisjoint(row.output.parts)


def _best_recorded(rows: tuple[Command, ...], units: Sequence[SourceUnit]) -> tuple[Command, ...]:
    """Of a source with several entries those whose options gcc recorded best (-fPIC of a shared twin, say)."""
    count: dict[Path, int] = {}
    for row in rows:
        count[row.source] = count.get(row.source, 0) + 1
    if len(count) == len(rows):
        return rows
    by_path, by_end = _by_path(units), _by_end(units)
    misfit: dict[Path, list[tuple[int, Command]]] = {}
    for row in (row for row in rows if count[row.source] > 1):
        options = _code_options(split_compiler(row)[1])
        recorded = [u.producer for u in _units_of(row, by_path, by_end) if u.producer[:4] == "GNU "]
        if recorded:
            least = min(len(_code_options(producer.split()) ^ options) for producer in recorded)
            misfit.setdefault(row.source, []).append((least, row))
    worse = [row for entries in misfit.values() for number, row in entries if number > min(n for n, _ in entries)]
    return tuple(row for row in rows if row not in worse)


def _code_options(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word for word in words if word.startswith(("-O", "-f", "-m", "-std=")))
