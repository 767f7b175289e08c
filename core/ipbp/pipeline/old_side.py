"""Which code the process runs now for one translation unit: the old side of the comparison.

Three sources, best first. A unit that was patched before: the journal says which object runs and where. Else the
object of the build tree, when memory proves that it is the one that was linked. Else (the tree was rebuilt, the
object is gone) the running image itself, lifted into a graph with the new object as the guide.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipbp.build.store import Store
from ipbp.errors import IpbpError
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import I64, BlockKind, LinkGraph
from ipbp.graph.name_index import NameIndex
from ipbp.graph.names import Names
from ipbp.graph.unit import UNBOUND
from ipbp.members import listed
from ipbp.pipeline.ahead import Ahead
from ipbp.pipeline.record import UnitRecord
from ipbp.pipeline.stored import graph_of_file, read_stored
from ipbp.stages.attest import Attestation
from ipbp.stages.lift import lift
from ipbp.stages.moved import empty_side
from ipbp.stages.select import OldSide
from ipbp.stages.straight import straight_names

LIFTED = "the running image"
"""Where an old side comes from that no object gave."""


def recorded_side(record: UnitRecord, store: Store) -> OldSide:
    """The object that an earlier patch made current. Its functions' entries are checked by the plan, which knows
    the bytes that the journal says are there."""
    graph = read_stored(record.object, store)
    address = addresses_by_name(graph, record.address)
    proved = np.ones(len(graph.blocks), dtype=bool)
    return _as_recorded(graph, address, proved, record)


def recorded_crate(
    record: UnitRecord,
    members: Container[str] | None,
    store: Store,
    image: LoadedImage,
    read: MemoryReader,
    ahead: Ahead,
) -> OldSide:
    """Of a crate that an earlier patch changed those of its objects that are `members`, all for None. What no patch had
    to do with is proved by memory, as for a first patch."""
    graph = read_stored(record.object, store, members=members)
    touched = set(record.members or ())
    every = set(listed(store.get(record.object).read_bytes()) or ()) - touched
    fresh = every if members is None else {name for name in every if name in members}
    address, doubtful = dict[str, int](), set[str]()
    if fresh:
        part = read_stored(record.object, store, members=fresh)
        found = ahead.attest(part, image, read)
        placed = np.flatnonzero((part.symbols.block >= 0) & (found.address != UNBOUND)).tolist()
        address = {part.symbols.name[row]: int(found.address[row]) for row in placed}
        unproved = ~found.proved & (part.blocks.kind == BlockKind.CODE)
        doubtful = {part.symbols.name[row] for row in part.blocks.anchor[unproved].tolist()}
    anchors = [graph.symbols.name[row] for row in graph.blocks.anchor.tolist()]
    proved = np.array([name not in doubtful or name in record.address for name in anchors], dtype=bool)
    return _as_recorded(graph, addresses_by_name(graph, {**address, **record.address}), proved, record)


def _as_recorded(graph: LinkGraph, address: I64, proved: npt.NDArray[np.bool_], record: UnitRecord) -> OldSide:
    # JSON makes lists of them.
    retired = {name: (place, size) for name, (place, size) in record.retired.items()}
    copies = {name: tuple((place, size) for place, size in rows) for name, rows in record.copies.items()}
    return OldSide(graph, address, proved, retired, frozenset(record.straight), copies, record.formers)


def attested_side(old: LinkGraph, image: LoadedImage, read: MemoryReader, ahead: Ahead) -> tuple[OldSide, Attestation]:
    """The object of the build tree, with what memory says of it."""
    found = ahead.attest(old, image, read)
    side = OldSide(old, found.address, found.proved, {})
    return replace(side, straight=straight_names(side, image, read)), found


def lifted_side(new: LinkGraph, image: LoadedImage, read: MemoryReader, sources: Collection[str] = ()) -> OldSide:
    """The image itself. `sources`: see `lift`. Errors: `image-not-lifted` for a program of Windows; those of `lift`."""
    if image.format != "elf":
        raise IpbpError(
            "image-not-lifted",
            f"the object that {new.source or new.path} was linked from is not there, or is not the one that runs, or "
            "the new one has what the program has from other files; a program of Windows is not compared by itself",
            "Keep the build tree as the program was built, and edit after that.",
        )
    graph, found = lift(new, image, read, sources)
    side = OldSide(graph, found.address, found.proved, {})
    return replace(side, straight=straight_names(side, image, read))


def old_side(
    new: LinkGraph,
    old_object: Path | None,
    record: UnitRecord | None,
    store: Store,
    image: LoadedImage,
    read: MemoryReader,
    ahead: Ahead,
    members: Container[str] | None = None,
) -> tuple[OldSide, str]:
    """The old side of a unit, and in words where it comes from. `members`: of a crate's objects those that are in
    `new`."""
    if record is not None and not record.object:
        return empty_side(new), "another unit"
    if record is not None and record.members is not None:
        return recorded_crate(record, members, store, image, read, ahead), "the object of the last patch"
    if record is not None:
        side = ahead.recorded(record, lambda: recorded_side(record, store))
        return side, "the object of the last patch"
    if old_object is not None and old_object.exists():
        try:
            is_crate = old_object.is_relative_to(store.root)
            graph = read_stored(old_object.stem, store, members=members) if is_crate else graph_of_file(old_object)
        except IpbpError:  # an object of another kind is no proof of anything; the image is
            return lifted_side(new, image, read), LIFTED
        side, found = attested_side(graph, image, read, ahead)
        if not found.mismatched and found.proved.any():
            return side, str(old_object)
    return lifted_side(new, image, read), LIFTED


def addresses_by_name(graph: LinkGraph, address: Mapping[str, int]) -> I64:
    """Per symbol of the graph the load address that its name has; UNBOUND for names that stand twice."""
    result = np.full(len(graph.symbols), UNBOUND, dtype=np.int64)
    names = [name for name in address if name]
    which, symbol = NameIndex(graph.symbols.name).pairs(Names.of(names))
    single = np.bincount(which, minlength=len(names))[which] == 1
    places = np.array([address[name] for name in names], dtype=np.int64)
    result[symbol[single]] = places[which[single]]
    return result
