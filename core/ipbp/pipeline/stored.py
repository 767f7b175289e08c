"""Objects of the store as graphs; of a crate those of its objects that are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Container
from pathlib import Path

from ipbp.build.store import Store
from ipbp.formats.elf_archive import is_archive, read_members, read_unit
from ipbp.graph.model import LinkGraph
from ipbp.members import differing, listed

_KEPT_BYTES = 32 << 20
_kept: OrderedDict[str, tuple[int, LinkGraph]] = OrderedDict()


def graph_of(digest: str, object: Path, path: str = "") -> LinkGraph:
    """The link graph of the store's file `object`, whose name there is `digest`. Those of the last single objects are
    kept: the new side of one patch is the old side of the next. `path`: for messages. Errors: those of `read_unit`."""
    if digest in _kept:
        _kept.move_to_end(digest)
        return _kept[digest][1]
    content = object.read_bytes()
    graph = read_unit(content, path or str(object))
    if not is_archive(content):
        _kept[digest] = len(content), graph
        while len(_kept) > 1 and sum(size for size, _graph in _kept.values()) > _KEPT_BYTES:
            _kept.popitem(last=False)
    return graph


def read_stored(digest: str, store: Store, path: str = "", members: Container[str] | None = None) -> LinkGraph:
    """The link graph of an object, or of those of a crate's objects together that are `members`, of all for None.
    `path`: for messages. Errors: those of `read_unit`; `store-object-missing`."""
    place = store.get(digest)
    path = path or str(place)
    rows = listed(place.read_bytes())
    if rows is None:
        return graph_of(digest, place, path)
    wanted = {name: row for name, row in sorted(rows.items()) if members is None or name in members}
    return read_members({name: store.get(row).read_bytes() for name, row in wanted.items()}, path)


def members_that_differ(old: str, new: str, store: Store, also: Collection[str] = ()) -> frozenset[str] | None:
    """Names of the objects of a crate that two lists in the store do not have alike, and `also`; None when one is no
    list."""
    before, after = (listed(store.get(digest).read_bytes()) for digest in (old, new))
    return None if before is None or after is None else differing(before, after, also)
