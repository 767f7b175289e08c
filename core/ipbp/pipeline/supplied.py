"""What the new code uses and the program does not have, out of the archives and objects that it was linked from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipbp.archive import NotAnArchive, defined_names
from ipbp.errors import Refusal
from ipbp.formats.elf_archive import is_archive, objects_of
from ipbp.formats.elf_object import read_object
from ipbp.graph.image import LoadedImage
from ipbp.graph.unit import Unit
from ipbp.pipeline.edited import Built
from ipbp.pipeline.record import Record, UnitRecord
from ipbp.pipeline.taken import places
from ipbp.stages.moved import shared_definitions
from ipbp.stages.supply import supply

ROUNDS = 20
"""Objects that need objects that need objects."""

Bind = Callable[[Sequence[Unit]], "tuple[list[Unit], tuple[Refusal, ...]]"]
"""Gives every outside name of some units its address, or a refusal."""


@dataclass(frozen=True, slots=True)
class Supplied:
    """`units`: the edited ones and those that bring what was missing, all names bound. `added`: how many of the last
    are such."""

    units: list[Unit]
    added: int
    refusals: tuple[Refusal, ...]


def with_archives(units: Sequence[Unit], bind: Bind, built: Sequence[Built], record: Record) -> Supplied:
    """The units as `bind` leaves them; what that does not find is looked for in the archives of the unit's image, in
    their order. These are asked for only then. What is in none of them stays refused."""
    sources = {row.module.key: _Source(row, record.units(row.module.key)) for row in built}
    extra: list[Unit] = []
    refused: list[Refusal] = []
    for _ in range(ROUNDS):
        every = [*units, *extra]
        bound, refusals = bind(every)
        image_of = {unit.name: unit.image for unit in every}
        progress = False
        for row in refusals:
            source = sources.get(image_of.get(row.file or "", ""))
            if row.code == "undefined-symbol" and row.symbol and source is not None:
                progress |= source.wants(row.symbol)
        if not progress:
            break
        made = [pair for source in sources.values() for pair in source.units()]
        extra = [unit for unit, _ in made]
        refused = [refusal for _, rows in made for refusal in rows]
    return Supplied(bound, len(extra), (*refusals, *refused))


class _Source:
    """The archives of one image, and what was wanted of them so far: names by archive and member, or by object and
    ""."""

    def __init__(self, built: Built, known: Mapping[str, UnitRecord]) -> None:
        self._built, self._known = built, known
        self._index: list[tuple[Path, dict[str, str]]] = []
        self._unread: Iterator[Path] | None = None
        self._wanted: dict[tuple[Path, str], set[str]] = {}

    def wants(self, name: str) -> bool:
        """Take a name along; False when no archive has it."""
        for path, names in self._each():
            if name in names:
                self._wanted.setdefault((path, names[name]), set()).add(name)
                return True
        return False

    def _each(self) -> Iterator[tuple[Path, dict[str, str]]]:
        """Every archive with its names; those behind the one that has the name are not read."""
        yield from self._index
        if self._unread is None:
            self._unread = iter(self._built.archives())
        for path in self._unread:
            self._index.append((path, dict(_names(path))))
            yield self._index[-1]

    def units(self) -> Iterator[tuple[Unit, tuple[Refusal, ...]]]:
        running = places(self._known) if self._wanted else {}
        for (path, member), names in self._wanted.items():
            yield _unit(path, member, names, self._built.module.image, running)


def _names(path: Path) -> Iterator[tuple[str, str]]:
    try:
        content = path.read_bytes()
        if is_archive(content):
            yield from defined_names(content).items()
        else:
            yield from dict.fromkeys(shared_definitions(read_object(content, str(path))), "").items()
    except (OSError, NotAnArchive):
        return  # what is in it stays undefined


def _unit(
    path: Path, member: str, names: set[str], image: LoadedImage, running: Mapping[str, int]
) -> tuple[Unit, tuple[Refusal, ...]]:
    name = f"{path}({member})" if member else str(path)
    content = path.read_bytes()
    graph = read_object(objects_of(content, str(path))[member] if member else content, name)
    return supply(name, graph, names, image, running)
