"""What a patch says of itself: the rows for the user, and the record for the next patch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ipbp.arch.catcher import CATCHER
from ipbp.build.store import Store
from ipbp.graph.layout import ThreadImage, UnitLayout
from ipbp.graph.linkonce import is_linkonce
from ipbp.graph.model import I64, UNDEFINED, Binding, BlockKind, LinkGraph
from ipbp.graph.unit import UNBOUND, Unit
from ipbp.pipeline.bound import global_names
from ipbp.pipeline.judge import Judged
from ipbp.pipeline.moves import Followed
from ipbp.pipeline.record import Record, UnitRecord
from ipbp.pipeline.taken import inner_names
from ipbp.protocol import FunctionChange
from ipbp.stages.name_numbers import base_name


def function_rows(unit: Judged, place: I64, followed: Followed, image: int) -> list[FunctionChange]:
    """A row for each function that changed, is new or is gone. `place`: of each block, UNBOUND where nothing is placed.
    `image`: the row of the unit's image in the plan."""
    graph, selection = unit.edited.new, unit.selection
    replaced = {row.block: row for row in selection.replaced if row.by_way_of == UNBOUND}
    rows = []
    for block in [*replaced, *(b for b in selection.added if graph.blocks.kind[b] == BlockKind.CODE)]:
        old = replaced.get(block)
        rows.append(
            FunctionChange(
                name=graph.block_name(block),
                status="changed" if old else "new",
                reason=unit.comparison.reason.get(block, "new in the process"),
                file=unit.edited.name,
                entry=old.entry if old else int(place[block]),
                address=int(place[block]),
                size=int(graph.blocks.size[block]),
                old_size=old.old_size if old else 0,
                image=image,
            )
        )
    for row in selection.replaced:
        if row.by_way_of != UNBOUND:
            carried = int(place[row.block])
            address, size = (carried, int(graph.blocks.size[row.block])) if carried != UNBOUND else (row.by_way_of, 0)
            reason = "another copy of it"
            rows.append(
                FunctionChange(
                    row.name, "changed", reason, unit.edited.name, row.entry, address, size, row.old_size, image
                )
            )
    return rows + [
        FunctionChange(
            name=name,
            status="removed",
            reason="no longer in the source",
            file=unit.edited.name,
            entry=address,
            old_size=int(unit.old.graph.blocks.size[block]),
            image=image,
        )
        for name, address, block in removed(unit, followed)
        if unit.old.graph.blocks.kind[block] == BlockKind.CODE
    ]


def new_variables(unit: Judged) -> list[str]:
    graph = unit.edited.new
    return [graph.block_name(b) for b in unit.selection.added if graph.blocks.kind[b] != BlockKind.CODE]


def record_after(
    before: Record,
    changed: Sequence[Judged],
    linked: Sequence[Unit],
    columns: Sequence[UnitLayout],
    followed: Mapping[str, Followed],
    threads: Sequence[ThreadImage],
    store: Store,
) -> Record:
    """What the next patch needs to know: for each unit of this one, the load address of every name. Where definitions
    moved, units that did not change otherwise are among them: they have fewer names now, or more. `followed`: by the
    image's key. `linked`: the changed units and behind them what came out of archives, of which the names count that
    others can use. `threads`: the thread-local variables that this patch brings. `store`: keeps what was linked."""
    placed = {(unit.edited.image.key, unit.edited.name): row for unit, row in zip(changed, columns, strict=False)}
    images = {key: dict(units) for key, units in before.images.items()}
    for extra, row in list(zip(linked, columns, strict=True))[len(changed) :]:
        if extra.name == CATCHER:
            continue
        units = images.setdefault(extra.image, {})
        names = {name: found.address for name, found in global_names(extra.graph, row.copy).items()}
        known = units.get(extra.name, UnitRecord("", {}))
        inner = {**known.inner, **inner_names(extra.graph, row.copy)}
        units[extra.name] = UnitRecord("", {**known.address, **names}, source=extra.graph.source, inner=inner)
    for key, found in followed.items():
        units = images.setdefault(key, {})
        units.update((name, UnitRecord("", {})) for name in found.vacated)
        here = [unit for unit in changed if unit.edited.image.key == key]
        for unit in found.judged if found.moved else here:
            name = unit.edited.name
            units[name] = _unit_record(unit, placed.get((key, name)), found, before.units(key).get(name), store)
    blocks = (*before.threads, *((row.start, row.size, row.offset_at) for row in threads))
    return Record({key: units for key, units in images.items() if units}, blocks)


def _unit_record(
    unit: Judged, columns: UnitLayout | None, followed: Followed, before: UnitRecord | None, store: Store
) -> UnitRecord:
    graph, address = unit.edited.new, unit.selection.unit.address
    outside = graph.symbols.block == UNDEFINED
    # What the running code says of another object's name (--wrap, a name that no table has) is not to be seen again.
    bound = _by_name(graph, address, outside)
    if columns is not None:
        # The unit's own place, also where another image's definition of the name is the one that counts.
        own = np.where(columns.copy != UNBOUND, columns.copy, columns.meaning)
        address = np.where(address != UNBOUND, address, own)
    names = _by_name(graph, address, ~outside)
    retired = dict(unit.old.retired)
    for name, place, block in removed(unit, followed):
        anchor = int(unit.old.graph.blocks.anchor[block])
        is_shared = unit.old.graph.symbols.binding[anchor] != Binding.LOCAL
        if unit.old.graph.blocks.kind[block] == BlockKind.CODE or is_shared:
            retired[name] = place, int(unit.old.graph.blocks.size[block])
    left = {name: row for name, row in retired.items() if name not in names}
    had = unit.old.address != UNBOUND
    old = list(zip(unit.old.graph.symbols.name.take(had), unit.old.address[had].tolist(), strict=True))
    fresh = {name for name, place in old if place != names.get(name, place)}
    beside = tuple(sorted((fresh | set(before.beside if before else ())) & names.keys()))
    straight = tuple(sorted(unit.old.straight))
    copies = {name: tuple(rows) for name, rows in unit.selection.copies.items()}
    members = None if unit.edited.members is None else tuple(sorted(unit.edited.members))
    found, files, flags = {**bound, **names}, unit.edited.dependencies, unit.edited.flags
    linked = before.linked if before is not None else _linked_object(unit, store)
    level = unit.edited.is_optimised
    formers = {**unit.old.formers, **_formers(old, names)}
    return UnitRecord(
        unit.edited.digest, found, files, left, beside, straight, copies, members, flags, linked, level, formers
    )


def _linked_object(unit: Judged, store: Store) -> str | None:
    """`UnitRecord.linked` of a unit that was never patched. A build may have replaced the object since memory proved
    it: who uses it proves it again."""
    old = unit.edited.old_object
    if unit.is_lifted:
        return ""
    if old is None:
        return None  # it came from outside the image
    try:
        return old.stem if old.is_relative_to(store.root) else store.put(old)
    except FileNotFoundError:
        return ""


def _by_name(graph: LinkGraph, address: I64, rows: npt.NDArray[np.bool_]) -> dict[str, int]:
    wanted = rows & (address != UNBOUND) & graph.symbols.name.are_given()
    return dict(zip(graph.symbols.name.take(wanted), address[wanted].tolist(), strict=True))


def _formers(old: Iterable[tuple[str, int]], names: Mapping[str, int]) -> dict[str, int]:
    """Of old names and their addresses those that are gone, while what is there has another name."""
    gone = {name: place for name, place in old if name and name not in names}
    there: dict[int, set[str]] = {place: set() for place in gone.values()}
    for name, place in names.items():
        if place in there:
            there[place].add(base_name(name))
    return {name: place for name, place in gone.items() if there[place] and base_name(name) not in there[place]}


def removed(unit: Judged, followed: Followed) -> Iterator[tuple[str, int, int]]:
    """Name, load address and old block of what this unit had and no unit has any more."""
    graph, address = unit.old.graph, unit.old.address
    others_may_have = is_linkonce(graph)
    for block in unit.comparison.removed:
        anchor = int(graph.blocks.anchor[block])
        if others_may_have[anchor]:
            continue
        if graph.symbols.name[anchor] not in followed.moved and address[anchor] != UNBOUND:
            yield graph.symbols.name[anchor], int(address[anchor]), block
