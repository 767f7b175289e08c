"""Where definitions of an image went: files added to the project, renamed, split, merged and deleted.

Each edited unit is judged against its own past first. What that leaves unexplained is explained here: a name that
nothing defines may be in a file that is new, a name that is new here may have been in another file before. A program
defines a name once, so a second definition of one that runs is either where it went, or a mistake that the user's
own linker would refuse as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ipbp.build.command import Command
from ipbp.build.compile import Tell
from ipbp.build.dirty import dirty
from ipbp.build.outside import compile_outside, mentioning
from ipbp.build.plan import Commands
from ipbp.build.producer import places_of
from ipbp.build.store import Store
from ipbp.build.trust import require_agreement
from ipbp.errors import Refusal
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.linkonce import is_linkonce
from ipbp.graph.model import Binding, LinkGraph, SymbolType
from ipbp.graph.unit import UNBOUND
from ipbp.pipeline.ahead import Ahead
from ipbp.pipeline.edited import Edited, as_edited
from ipbp.pipeline.judge import Judged, judge_against
from ipbp.pipeline.layouts import file_names, types_of_object
from ipbp.pipeline.old_side import lifted_side, recorded_side
from ipbp.pipeline.record import UnitRecord
from ipbp.stages.begun_anew import Definitions, begun_anew, definitions, in_another_module
from ipbp.stages.cxx_names import function_path
from ipbp.stages.moved import empty_side, joined, shared_definitions, statics
from ipbp.stages.select import OldSide

Undefined = Callable[[Iterable[Judged]], frozenset[str]]
"""Names that these units use and that nothing has."""


_VARIABLES = (SymbolType.OBJECT, SymbolType.TLS)
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Followed:
    """`judged`: all units, those from outside the image included. `moved`: names that are in another unit now.
    `vacated`: units, by their names in the record, whose definitions went elsewhere."""

    judged: tuple[Judged, ...]
    moved: frozenset[str] = frozenset()
    vacated: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to look at. `known`: the image's units that were patched. `mtime_ns`: of the mapped image."""

    known: Mapping[str, UnitRecord]
    store: Store
    image: LoadedImage
    read: MemoryReader
    mtime_ns: int
    tell: Tell
    colour: bool = False


def follow_definitions(judged: Iterable[Judged], commands: Commands, scene: Scene, undefined: Undefined) -> Followed:
    """The units of one image again, each with an old side that has all that was moved into it, and with units from
    outside the image that the others need. Refusals: `duplicate-symbol`, `ambiguous-static`."""
    units = tuple(judged)
    gone = _names_of_vanished(commands, scene.image)
    newcomers, notes, refused = _newcomers(units, commands, scene, gone, undefined)
    return _Moves((*units, *newcomers), commands, scene, gone).run(notes, refused)


def follow_crates(judged: Iterable[Judged]) -> Followed:
    """The crates of one image. What moves into another module or crate has another name there: nothing is brought
    along. Refusals: `ambiguous-static`."""
    units = tuple(judged)
    lost = [_lost(unit) for unit in units]
    refusals: list[Refusal] = []
    for unit in units:
        fresh = _fresh(unit)
        pairs = dict(pair for side in lost for pair in in_another_module(side, fresh))
        refusals += [_ambiguous(unit, name, known) for name, known in pairs.items()]
    return Followed(units, refusals=tuple(refusals))


def _ambiguous(unit: Judged, name: str, known: str) -> Refusal:
    return Refusal(
        "ambiguous-static",
        f"'{name}' is new in {unit.edited.name}, and could be '{known}' of the running program, which was elsewhere "
        "until this edit",
        "Give it another name when it is to be a new variable; or build and start the program once more.",
        name,
        unit.edited.name,
    )


def _names_of_vanished(commands: Commands, image: LoadedImage) -> frozenset[str]:
    """Shared functions and variables of those units of the image whose source is gone."""
    if not commands.vanished:
        return frozenset()
    table = image.symbols
    rows = np.flatnonzero(table.binding != Binding.LOCAL)
    link = table.address[rows] - image.bias
    inside = np.zeros(len(rows), dtype=np.bool_)
    for start, end in places_of(Path(image.debug_file), commands.vanished):
        inside |= (link >= start) & (link < end)
    return frozenset(table.name[row] for row in rows[inside].tolist())


def _newcomers(
    units: tuple[Judged, ...], commands: Commands, scene: Scene, gone: frozenset[str], undefined: Undefined
) -> tuple[list[Judged], tuple[str, ...], tuple[Refusal, ...]]:
    """Units from outside the image: those that define what is missing, and what these miss themselves."""
    seen = {*scene.known, *(unit.edited.name for unit in units)}
    rows = tuple(row for row in commands.outside if str(row.source) not in seen)
    found: list[Judged] = []
    notes: list[str] = []
    refused: list[Refusal] = []
    lost = gone | _left(units)
    while rows:
        wanted = undefined((*units, *found))
        chosen = {*mentioning(rows, wanted), *_edited_since(mentioning(rows, lost), scene)}
        if not chosen:
            break
        ordered = [row for row in rows if row in chosen]
        rows = tuple(row for row in rows if row not in chosen)
        compiled, said = compile_outside(ordered, scene.store, scene.tell, scene.colour)
        notes += said
        new, refusals = as_edited(compiled, [scene.image])
        refused += refusals
        found += [_as_new(unit) for unit in new if not (wanted | lost).isdisjoint(shared_definitions(unit.new))]
    return found, tuple(notes), tuple(refused)


def _left(units: Iterable[Judged]) -> frozenset[str]:
    """Names that edited units defined and none of them does now."""
    before = {name for unit in units for name in shared_definitions(unit.old.graph)}
    return frozenset(before.difference(*(shared_definitions(unit.edited.new) for unit in units)))


def _edited_since(rows: tuple[Command, ...], scene: Scene) -> list[Command]:
    if not rows:
        return []
    require_agreement(rows)
    return [row.command for row in dirty(rows, scene.mtime_ns, {})]


def _as_new(unit: Edited) -> Judged:
    return judge_against(unit, empty_side(unit.new), False, Ahead())


def _places(side: OldSide) -> set[int]:
    """Load addresses of what is defined there."""
    return set(side.address[side.graph.symbols.block >= 0].tolist())


def _without(unit: Judged, gone: set[int]) -> Judged:
    """The unit, whose old side no longer says that what it lost runs at these addresses: another unit's does."""
    address = unit.old.address.copy()
    lost = np.isin(unit.old.graph.symbols.block, unit.comparison.removed) & np.isin(address, sorted(gone))
    address[lost] = UNBOUND
    return replace(unit, old=replace(unit.old, address=address)) if lost.any() else unit


def _paths(names: Iterable[str]) -> set[str]:
    """What those of these names that are functions of C++ are called."""
    return {path for name in names if (path := function_path(name))}


def _of_one_unit(graph: LinkGraph, names: Iterable[str]) -> set[str]:
    """Those of the unit's shared functions that no other unit may have, too."""
    symbols, shared = shared_definitions(graph), is_linkonce(graph)
    return {
        name
        for name in names
        if (row := symbols.get(name)) is not None and graph.symbols.type[row] == SymbolType.FUNCTION and not shared[row]
    }


def _running(unit: Judged) -> list[int]:
    """Blocks that the unit lost and that nobody else has now."""
    anchor = unit.old.graph.blocks.anchor
    return [block for block in unit.comparison.removed if unit.old.address[anchor[block]] != UNBOUND]


def _lost(unit: Judged) -> Definitions:
    graph, sides = unit.old.graph, unit.types.sides
    types = sides[0] if sides is not None else None
    return definitions(graph, _running(unit), lambda: types, lambda: dict(file_names(graph)))


def _fresh(unit: Judged) -> Definitions:
    graph = unit.edited.new
    return definitions(graph, unit.selection.added, lambda: types_of_object(graph), lambda: dict(file_names(graph)))


@dataclass(slots=True)
class _Moves:
    """One pass over all units; what it finds on the way is collected in the last three fields."""

    units: tuple[Judged, ...]
    commands: Commands
    scene: Scene
    gone: frozenset[str]
    moved: set[str] = field(default_factory=set)
    vacated: set[str] = field(default_factory=set)
    refusals: list[Refusal] = field(default_factory=list)

    def run(self, notes: tuple[str, ...], refused: tuple[Refusal, ...]) -> Followed:
        judged = tuple(map(self._with_arrivals, self.units))
        arrived: set[int] = set()
        for before, after in zip(self.units, judged, strict=True):
            if after is not before:
                arrived |= _places(after.old) - _places(before.old)
        judged = tuple(_without(unit, arrived) for unit in judged) if arrived else judged
        for unit in judged:
            self._refuse_fresh(unit, judged)
        refusals = (*refused, *self.refusals)
        return Followed(judged, frozenset(self.moved), frozenset(self.vacated), notes, refusals)

    def _with_arrivals(self, unit: Judged) -> Judged:
        graph, before = unit.edited.new, shared_definitions(unit.old.graph)
        open_names = {name: row for name, row in shared_definitions(graph).items() if name not in before}
        for name in unit.old.retired:  # it was this unit's before, and is taken back by `select`
            if name in open_names and graph.symbols.type[open_names[name]] == SymbolType.FUNCTION:
                del open_names[name]
        old = unit.old
        for source in (self._from_edited, self._from_recorded, self._from_image):
            if open_names:
                old = source(unit, old, open_names)
        return unit if old is unit.old else judge_against(unit.edited, old, unit.is_lifted, Ahead(), unit.types)

    def _from_edited(self, unit: Judged, old: OldSide, names: dict[str, int]) -> OldSide:
        """Out of another edited unit, which does not define them any more, or from which this one has them as well."""
        for other in self.units:
            if other is unit:
                continue
            left = shared_definitions(other.old.graph).keys() - shared_definitions(other.edited.new).keys()
            old = self._take_too(old, other.old, names, self._linkonce(unit, names))
            static = statics(other.old.graph, other.comparison.removed)
            old = self._take(old, other.old, names, names.keys() & left, static)
            gone = _of_one_unit(other.old.graph, left)
            old = self._take_variables(unit, old, other.old, names, gone, static)
        return old

    def _from_recorded(self, unit: Judged, old: OldSide, names: dict[str, int]) -> OldSide:
        """Out of a unit that an earlier patch changed and that is not edited now: its source must be gone."""
        judged = {other.edited.name for other in self.units}
        there = {str(row.source) for row in (*self.commands.commands, *self.commands.outside) if row.source.exists()}
        for key, row in self.scene.known.items():
            if key in judged or not row.object:
                continue
            other = recorded_side(row, self.scene.store)
            old = self._take_too(old, other, names, self._linkonce(unit, names))
            defined = shared_definitions(other.graph).keys()
            arrived = names.keys() & defined
            if arrived and key in there:
                self._refuse(unit, names, arrived, key)
            elif key not in there:
                static = statics(other.graph, range(len(other.graph.blocks)))
                before = old
                old = self._take(old, other, names, arrived, static)
                old = self._take_variables(unit, old, other, names, _of_one_unit(other.graph, defined), static)
                if old is not before:
                    self.vacated.add(key)
        return old

    def _from_image(self, unit: Judged, old: OldSide, names: dict[str, int]) -> OldSide:
        """Out of a unit of the image that is not edited now: its source must be gone. Definitions that every unit may
        have are the exception: the program runs the first of them."""
        arrived = {name for name in names if self._in_image(name)}
        gone = {name for name in self.gone if self._is_global_in_image(name)}
        taking_more = bool(gone) and not _paths(_of_one_unit(unit.edited.new, names)).isdisjoint(_paths(gone))
        if not arrived and not taking_more:
            return old
        known = self.scene.known.get(unit.edited.name)
        returned = known is not None and not known.object
        explained = not self.commands.units or returned or any(other.is_lifted for other in self.units)
        if not explained:
            weak = {name for name in arrived if unit.edited.new.symbols.binding[names[name]] == Binding.WEAK}
            weak |= self._linkonce(unit, names)
            strange = arrived - weak - self.gone - unit.old.retired.keys()
            self._refuse(unit, names, strange, "the running program")
            arrived -= strange
        came = bool(arrived & self.gone) or taking_more
        files = {row.source.name for row in self.commands.vanished} if came else set()
        if returned:
            files.add(unit.edited.new.source)
        other = lifted_side(unit.edited.new, self.scene.image, self.scene.read, files)
        static = statics(other.graph, range(len(other.graph.blocks))) if files else frozenset()
        if came:
            self.vacated.update(str(row.source) for row in self.commands.vanished)
        old = self._take(old, other, names, arrived, static)
        return self._take_variables(unit, old, other, names, gone, static)

    def _is_global_in_image(self, name: str) -> bool:
        table = self.scene.image.symbols
        return any(table.binding[row] == Binding.GLOBAL for row in table.by_name.get(name, ()))

    def _in_image(self, name: str) -> bool:
        table = self.scene.image.symbols
        rows = table.by_name.get(name, ())
        return any(table.binding[row] != Binding.LOCAL or (table.file[row] < 0 and table.files) for row in rows)

    def _take(
        self, old: OldSide, other: OldSide, names: dict[str, int], arrived: Iterable[str], static: Iterable[str]
    ) -> OldSide:
        taken = frozenset(arrived)
        if not taken:
            return old
        self.moved |= taken
        for name in taken:
            del names[name]
        return joined(old, other, taken, frozenset(static))

    def _take_variables(
        self,
        unit: Judged,
        old: OldSide,
        other: OldSide,
        names: Iterable[str],
        gone: Iterable[str],
        static: frozenset[str],
    ) -> OldSide:
        """The static variables of functions that take something else now. These are other functions, and their
        variables are the same ones (`stages.linkage`)."""
        if not static or _paths(gone).isdisjoint(_paths(_of_one_unit(unit.edited.new, names))):
            return old
        return joined(old, other, (), static)

    def _take_too(self, old: OldSide, other: OldSide, names: dict[str, int], shared: Container[str]) -> OldSide:
        """What both units have by right and what runs by the other's account."""
        symbols = shared_definitions(other.graph)
        taken = {name for name in names.keys() & symbols.keys() if name in shared}
        taken = {name for name in taken if other.address[symbols[name]] != UNBOUND}
        for name in taken:
            del names[name]
        return joined(old, other, taken, ()) if taken else old

    def _linkonce(self, unit: Judged, names: Mapping[str, int]) -> frozenset[str]:
        shared = is_linkonce(unit.edited.new)
        return frozenset(name for name, row in names.items() if shared[row])

    def _refuse_fresh(self, unit: Judged, units: Sequence[Judged]) -> None:
        """New variables that may be those which another unit had."""
        fresh = _fresh(unit)
        if not fresh.variables:
            return
        sides = [_lost(other) for other in units if other is not unit]
        taken = set().union(*(_places(other.old) for other in units))
        sides += self._in_recorded_without_source(taken)
        if self.commands.vanished:
            sides.append(self._static_in_vanished(taken))
        pairs = dict(pair for side in sides for pair in begun_anew(side, fresh))
        self.refusals += [_ambiguous(unit, name, known) for name, known in pairs.items()]

    def _in_recorded_without_source(self, taken: Collection[int]) -> Iterator[Definitions]:
        """Of units that an earlier patch changed and whose source is gone since. `taken`: load addresses of what other
        units have."""
        judged = {other.edited.name for other in self.units}
        for key, row in self.scene.known.items():
            if row.object and key not in judged and not Path(key).exists():
                side = recorded_side(row, self.scene.store)
                place = side.address[side.graph.blocks.anchor]
                left = (place != UNBOUND) & ~np.isin(place, sorted(taken))
                yield definitions(side.graph, np.flatnonzero(left).tolist())

    def _static_in_vanished(self, taken: Collection[int]) -> Definitions:
        table = self.scene.image.symbols
        taken = set(taken).union(*(row.address.values() for row in self.scene.known.values()))
        names = {row.source.name for row in self.commands.vanished}
        files = [number for number, name in enumerate(table.files) if name in names]
        rows = np.flatnonzero(np.isin(table.file, files)).tolist()
        functions = tuple(table.name[row] for row in rows if table.type[row] == SymbolType.FUNCTION)
        variables = (row for row in rows if table.type[row] in _VARIABLES and int(table.address[row]) not in taken)
        return Definitions(functions, tuple(table.name[row] for row in variables))

    def _refuse(self, unit: Judged, names: dict[str, int], twice: Iterable[str], where: str) -> None:
        for name in sorted(twice):
            del names[name]
            self.refusals.append(
                Refusal(
                    "duplicate-symbol",
                    f"'{name}' is defined in {where} and in {unit.edited.name}",
                    "Rename one of them, make it static, or take it out of the other file.",
                    name,
                    unit.edited.name,
                )
            )
