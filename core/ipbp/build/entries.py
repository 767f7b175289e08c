"""Which entries of a compilation database made the running image.

A database speaks of a whole source tree: other programs, tests, the same source compiled twice for a library and its
static twin. The image's debug information names its units; where one source still has several entries, the path of
the object tells the target, or gcc's record of its options tells the entry. What no evidence decides is kept: only
the comparison with memory can say then (`pipeline.order`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipbp.build.command import Command, is_assembly, split_compiler
from ipbp.build.producer import SourceUnit

# Options that turn debug information on or off, not those that only shape it.
_DEBUG_LEVEL = re.compile(
    r"-g|-g[0-3]|-ggdb[0-3]?|-gdwarf(-[2-5])?|-gsplit-dwarf|-gline-tables-only|-gline-directives-only|-gmlt|-glldb|-gsce"
    r"|-Wa,(.*,)?(-g|--gdwarf|--gen-debug).*"
)


@dataclass(frozen=True, slots=True)
class Entries:
    """Of a database, in its order. `image`: the entries that compile the image's units; all of them when its debug
    information names none. `outside`: entries, each source once, of files that are there and that the image was not
    built from: added to the project since, renamed, or of another program; where the paths of objects tell the target,
    only its own. `vanished`: units of the image whose source is not there any more, though its folder is: renamed, or
    deleted."""

    image: tuple[Command, ...]
    outside: tuple[Command, ...] = ()
    vanished: tuple[SourceUnit, ...] = ()


def sorted_entries(rows: Sequence[Command], units: Sequence[SourceUnit], executable: Path) -> Entries:
    """Which entries of a database are of the image with these units, as the file system is now."""
    if not units:
        return Entries(_of_target(rows, executable))
    places = _Places(units)
    named = {row.source: places.units_of(row.source) for row in rows}
    there = [row for row in rows if row.source.exists()]
    others = _one_of_each_source(row for row in there if not named[row.source])
    is_told = any(named[row.source] and _is_of_target(row, executable) for row in there)
    found = {unit for row in there for unit in named[row.source]}
    return Entries(
        image=_best_recorded(_of_target([row for row in rows if named[row.source]], executable), places),
        outside=tuple(row for row in others if _is_of_target(row, executable)) if is_told else others,
        vanished=tuple(unit for unit in units if places.is_gone(unit) and unit not in found),
    )


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


def _one_of_each_source(rows: Iterable[Command]) -> tuple[Command, ...]:
    first: dict[Path, Command] = {}
    for row in rows:
        first.setdefault(row.source, row)
    return tuple(first.values())


class _Places:
    """An image's units by what a source can be recognised by."""

    def __init__(self, units: Iterable[SourceUnit]) -> None:
        self._real: dict[str, str] = {}
        self._by_path: dict[str, list[SourceUnit]] = {}
        # By base name, with the end of the path: with a prefix map (-ffile-prefix-map, as distributions use) the
        # folder in the debug information is not the true one, and nothing else can be compared.
        self._by_end: dict[str, list[tuple[tuple[str, ...], SourceUnit]]] = {}
        self._missing: set[SourceUnit] = set()
        for unit in units:
            is_absolute = unit.source.is_absolute()
            if is_absolute:
                self._by_path.setdefault(self._real_path(unit.source), []).append(unit)
            if not unit.source.exists():
                self._missing.add(unit)
            elif is_absolute:
                continue
            tail = _tail(unit.name)
            self._by_end.setdefault(tail[-1] if tail else "", []).append((tail, unit))

    def units_of(self, source: Path) -> list[SourceUnit]:
        """The units that this source may be."""
        named = self._by_path.get(self._real_path(source), [])
        ends = self._by_end.get(source.name, ())
        return named or [unit for tail, unit in ends if source.parts[-len(tail) :] == tail]

    def is_gone(self, unit: SourceUnit) -> bool:
        """Whether its source was there, as its folder is."""
        return unit in self._missing and unit.source.parent.is_dir()

    def _real_path(self, path: Path) -> str:
        text = str(path)
        real = self._real.get(text)
        if real is None:
            real = self._real[text] = os.path.realpath(text)
        return real


def _tail(name: str) -> tuple[str, ...]:
    """The parts of a path that are surely below the project."""
    return tuple(part for part in Path(os.path.normpath(name)).parts if part not in ("..", "/"))


def _of_target(rows: Sequence[Command], executable: Path) -> tuple[Command, ...]:
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


def _best_recorded(rows: tuple[Command, ...], places: _Places) -> tuple[Command, ...]:
    """Of a source with several entries those whose options gcc recorded best (-fPIC of a shared twin, say)."""
    count: dict[Path, int] = {}
    for row in rows:
        count[row.source] = count.get(row.source, 0) + 1
    if len(count) == len(rows):
        return rows
    misfit: dict[Path, list[tuple[int, Command]]] = {}
    for row in (row for row in rows if count[row.source] > 1):
        options = _code_options(split_compiler(row)[1])
        recorded = [u.producer for u in places.units_of(row.source) if u.producer[:4] == "GNU "]
        if recorded:
            least = min(len(_code_options(producer.split()) ^ options) for producer in recorded)
            misfit.setdefault(row.source, []).append((least, row))
    worse = [row for entries in misfit.values() for number, row in entries if number > min(n for n, _ in entries)]
    return tuple(row for row in rows if row not in worse)


def _code_options(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word for word in words if word.startswith(("-O", "-f", "-m", "-std=")))
