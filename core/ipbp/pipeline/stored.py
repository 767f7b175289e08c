"""Objects of the store as graphs; of a crate those of its objects that are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from ipbp.build.store import Store
from ipbp.formats.elf_archive import is_archive, read_unit
from ipbp.graph.merge import merged
from ipbp.graph.model import LinkGraph
from ipbp.kept import Kept
from ipbp.members import differing, listed

_graphs: Kept[str, LinkGraph] = Kept(64 << 20)
"""Single objects by digest, 64 MB of them: the new side of one patch is the old side of the next, and of two versions
of a crate most objects are alike."""


_crates: Kept[tuple[str, tuple[tuple[str, str], ...]], LinkGraph] = Kept(8 << 20)
"""What was merged of them last, 8 MB."""


def graph_of(digest: str, object: Path, path: str = "") -> LinkGraph:
    """The link graph of the store's file `object`, whose name there is `digest`. Those of the last single objects are
    kept. `path`: for messages. Errors: those of `read_unit`."""
    return _graph(digest, object.read_bytes, path or str(object))


def graph_of_file(object: Path) -> LinkGraph:
    """The same of a file anywhere."""
    content = object.read_bytes()
    return _graph(hashlib.sha256(content).hexdigest(), lambda: content, str(object))


def _graph(digest: str, read: Callable[[], bytes], path: str) -> LinkGraph:
    graph = _graphs.get(digest)
    if graph is None:
        content = read()
        graph = read_unit(content, path)
        if not is_archive(content):
            _graphs.put(digest, graph, len(content))
    return graph if graph.path == path else replace(graph, path=path)


def read_stored(digest: str, store: Store, path: str = "", members: Container[str] | None = None) -> LinkGraph:
    """The link graph of an object, or of those of a crate's objects together that are `members`, of all for None.
    `path`: for messages. Errors: those of `read_unit`; `store-object-missing`."""
    place = store.get(digest)
    path = path or str(place)
    rows = listed(place.read_bytes())
    if rows is None:
        return graph_of(digest, place, path)
    return together(path, {name: row for name, row in rows.items() if members is None or name in members}, store)


def together(path: str, rows: Mapping[str, str], store: Store) -> LinkGraph:
    """The link graph of these objects of a crate, name -> digest. Errors: as above."""
    key = path, tuple(sorted(rows.items()))
    graph = _crates.get(key)
    if graph is None:
        graph = merged(path, [_graph(row, partial(_content, store, row), f"{path}({name})") for name, row in key[1]])
        _crates.put(key, graph, len(graph.sections.content.octets))
    return graph


def _content(store: Store, digest: str) -> bytes:
    return store.get(digest).read_bytes()


def members_that_differ(old: str, new: str, store: Store, also: Collection[str] = ()) -> frozenset[str] | None:
    """Names of the objects of a crate that two lists in the store do not have alike, and `also`; None when one is no
    list."""
    before, after = (listed(store.get(digest).read_bytes()) for digest in (old, new))
    return None if before is None or after is None else differing(before, after, also)
