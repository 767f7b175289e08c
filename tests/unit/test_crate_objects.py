"""A crate's objects are kept each once, and told apart by their list before any of them is read."""

from __future__ import annotations

import os
from pathlib import Path

from ipbp.build.codegen_units import CrateObject
from ipbp.build.crate_objects import kept_objects
from ipbp.build.store import Store
from ipbp.members import differing, listed, packed_list


def session(folder: Path, **contents: bytes) -> list[CrateObject]:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [CrateObject(name, str(folder / name)) for name in sorted(contents)]


def test_a_list_says_what_differs_without_the_objects() -> None:
    old = {"a.o": "1", "b.o": "2", "gone.o": "3"}
    new = {"a.o": "1", "b.o": "4", "fresh.o": "5"}
    assert differing(old, new) == {"b.o", "gone.o", "fresh.o"}
    assert differing(old, new, ("a.o",)) == {"a.o", "b.o", "gone.o", "fresh.o"}
    assert listed(packed_list(new.items())) == new
    assert packed_list(new.items()) == packed_list(reversed(new.items()))
    assert listed(b"!<arch>\n") is None


def test_both_sides_have_an_object_where_one_only_came() -> None:
    assert differing({"a.o": "1"}, {"a.o": "1", "b.o": "2"}) == {"a.o", "b.o"}
    assert differing({"a.o": "1"}, {"b.o": "2"}) == {"a.o", "b.o"}


def test_what_is_linked_into_the_next_session_is_not_read_again(tmp_path: Path) -> None:
    store, digests = Store(tmp_path / "store"), tmp_path / "digests"
    store.root.mkdir()
    first = kept_objects(session(tmp_path / "s1", a=b"one", b=b"two"), digests, store)
    (tmp_path / "s2").mkdir()
    os.link(tmp_path / "s1/a", tmp_path / "s2/a")
    (tmp_path / "s2/b").write_bytes(b"other")

    class Unread(CrateObject):
        def read(self) -> bytes:
            raise AssertionError("it was read")

    rows = [Unread("a", str(tmp_path / "s2/a")), CrateObject("b", str(tmp_path / "s2/b"))]
    second = kept_objects(rows, digests, store)
    assert differing(listed(first) or {}, listed(second) or {}) == {"a", "b"} - {"a"}
    assert store.get((listed(second) or {})["b"]).read_bytes() == b"other"


def test_an_object_that_left_the_store_is_read_again(tmp_path: Path) -> None:
    store, digests = Store(tmp_path / "store"), tmp_path / "digests"
    store.root.mkdir()
    rows = session(tmp_path / "s1", a=b"one")
    first = listed(kept_objects(rows, digests, store)) or {}
    assert store.prune((), 0, 0) == [first["a"]]
    assert listed(kept_objects(rows, digests, store)) == first
    assert store.has(first["a"])


def test_what_was_found_in_the_store_a_moment_ago_is_not_looked_for_again(tmp_path: Path) -> None:
    store, digests = Store(tmp_path / "store"), tmp_path / "digests"
    store.root.mkdir()
    rows = session(tmp_path / "s1", a=b"one")
    first = kept_objects(rows, digests, store)
    kept = (listed(first) or {})["a"]
    assert store.prune((), 0, 0) == [kept]
    assert kept_objects(rows, digests, store, {kept}) == first
    assert not store.has(kept)
