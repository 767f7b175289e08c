"""Types that one unit described before an edit, and that another one describes after it.

Each unit is compared with its own past (`c_types`). But a unit may describe a type no more, and another one for the
first time: what uses it went to another file, or a class did that clang describes only where its constructors or its
virtual functions are. What lives in the process is of the old layout all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ipbp.build.store import Store
from ipbp.graph.image import LoadedImage
from ipbp.graph.layouts import Aggregate, UnitTypes
from ipbp.pipeline.judge import Judged
from ipbp.pipeline.layouts import file_names, types_of_image, types_of_object
from ipbp.pipeline.record import UnitRecord
from ipbp.pipeline.stored import read_stored
from ipbp.stages.layout_changes import layout_changes
from ipbp.stages.type_changes import NO_CHANGES, TypeChanges

_Aggregates = Mapping[str, tuple[Aggregate, ...]]


def types_elsewhere(
    units: Sequence[Judged],
    vacated: Iterable[str],
    known: Mapping[str, UnitRecord],
    image: LoadedImage,
    store: Store,
    allowed: Collection[str],
) -> TypeChanges:
    """What the units of one image say together. `vacated`: sources whose definitions are in other units now. `known`:
    units that were patched before. Refusals: `layout-changed`."""
    own = [unit for unit in units if not unit.edited.is_crate]
    lost = [_types_before(source, known, image, store) for source in vacated]
    if len(own) + len(lost) < 2:
        return NO_CHANGES
    old = [*lost]
    gone = [types.aggregates for types in lost]
    come: list[tuple[Judged, _Aggregates]] = []
    for unit in own:
        before, after = unit.types.sides or (None, types_of_object(unit.edited.new))
        there: _Aggregates = before.aggregates if before is not None else {}
        old += [before] if before is not None else []
        gone.append(_without(there, after.aggregates))
        come.append((unit, _without(after.aggregates, there)))
    left = _joined(gone)
    found = []
    for unit, aggregates in come:
        names = aggregates.keys() & left.keys()
        if names:
            every = {**_joined(types.aggregates for types in old), **{name: left[name] for name in names}}
            fresh = {name: aggregates[name] for name in names}
            sides = UnitTypes(every, {}, True), UnitTypes(fresh, {}, True)
            found.append(layout_changes(*sides, unit.edited.name, allowed, _named(dict(file_names(unit.edited.new)))))
    return TypeChanges(
        frozenset(),
        tuple(refusal for row in found for refusal in row.refusals),
        tuple(note for row in found for note in row.notes),
        agreed=tuple(name for row in found for name in row.agreed),
    )


def _types_before(source: str, known: Mapping[str, UnitRecord], image: LoadedImage, store: Store) -> UnitTypes:
    record = known.get(source)
    if record is not None and record.object:
        return types_of_object(read_stored(record.object, store))
    return types_of_image(image, Path(source).name)


def _named(names: Mapping[int, str]) -> Callable[[int], str]:
    return lambda number: names.get(number, "")


def _without(types: _Aggregates, others: _Aggregates) -> _Aggregates:
    return {name: types[name] for name in types.keys() - others.keys()}


def _joined(types: Iterable[_Aggregates]) -> dict[str, tuple[Aggregate, ...]]:
    found: dict[str, tuple[Aggregate, ...]] = {}
    for row in types:
        for name, aggregates in row.items():
            found[name] = (*found.get(name, ()), *aggregates)
    return found
