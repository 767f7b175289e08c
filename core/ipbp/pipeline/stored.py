"""Objects of the store as graphs; of a crate those of its objects that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Container

from ipbp.build.store import Store
from ipbp.formats.elf_archive import read_members, read_unit
from ipbp.graph.model import LinkGraph
from ipbp.members import differing, listed


def read_stored(digest: str, store: Store, path: str = "", members: Container[str] | None = None) -> LinkGraph:
    """The link graph of an object, or of those of a crate's objects together that are `members`, of all for None.
    `path`: for messages. Errors: those of `read_unit`; `store-object-missing`."""
    place = store.get(digest)
    content, path = place.read_bytes(), path or str(place)
    rows = listed(content)
    if rows is None:
        return read_unit(content, path)
    wanted = {name: row for name, row in sorted(rows.items()) if members is None or name in members}
    return read_members({name: store.get(row).read_bytes() for name, row in wanted.items()}, path)


def members_that_differ(old: str, new: str, store: Store, also: Collection[str] = ()) -> frozenset[str] | None:
    """Names of the objects of a crate that two lists in the store do not have alike, and `also`; None when one is no
    list."""
    before, after = (listed(store.get(digest).read_bytes()) for digest in (old, new))
    return None if before is None or after is None else differing(before, after, also)
