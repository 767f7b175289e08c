"""Objects of a crate, told of while their compiler runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.early_objects import changed_last, remember_changed, seen_early
from ipbp.build.store import Store

ROW = CrateCommand("app", "app-1f2e", "bin", "/p", "/p/target/debug/deps", "/p/main.rs", (), (), (), True)


class _Told:
    """What was told so far, to be waited for."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, dict[str, str]]] = []
        self.came = threading.Event()

    def __call__(self, row: CrateCommand, running: str, made: Mapping[str, str]) -> None:
        self.rows.append((row.source, running, dict(made)))
        self.came.set()

    def wait(self) -> None:
        assert self.came.wait(60)
        self.came.clear()


def test_an_object_is_told_of_when_it_is_there_as_a_whole_and_is_new(tmp_path: Path) -> None:
    store, folder, told = Store(tmp_path / "store"), tmp_path / "deps", _Told()
    store.root.mkdir()
    folder.mkdir()
    old = folder / "app-1f2e.last.0.rcgu.o"  # a link to what the last compile made
    old.write_bytes(b"old")
    os.utime(old, (time.time() - 60, time.time() - 60))
    asked: list[Collection[str]] = []

    def running(names: Collection[str]) -> str:
        asked.append(set(names))
        return "digest of the list"

    with seen_early(ROW, folder, store, running, told):
        (folder / "other-1f2e.x.0.rcgu.o").write_bytes(b"of another crate")
        (folder / "app-1f2e.empty.0.rcgu.o").write_bytes(b"")  # rustc opens it some time before it writes
        (folder / "app-1f2e.one.0.rcgu.o").write_bytes(b"one")
        told.wait()
        (folder / "app-1f2e.empty.0.rcgu.o").write_bytes(b"two")
        told.wait()
    one, two = store.put(b"one"), store.put(b"two")
    assert told.rows == [
        ("/p/main.rs", "digest of the list", {"one.o": one}),
        ("/p/main.rs", "digest of the list", {"one.o": one, "empty.o": two}),
    ]
    assert asked == [{"one.o"}, {"one.o", "empty.o"}]
    assert store.get(one).read_bytes() == b"one"


def test_nothing_is_told_where_it_is_not_known_what_runs(tmp_path: Path) -> None:
    store, asked, told = Store(tmp_path), threading.Event(), _Told()

    def running(names: Collection[str]) -> str:
        asked.set()
        return ""

    with seen_early(ROW, tmp_path, store, running, told):
        (tmp_path / "app-1f2e.one.0.rcgu.o").write_bytes(b"one")
        assert asked.wait(60)
    assert told.rows == []


def test_where_it_is_known_what_to_expect_the_side_that_runs_is_told_of_first(tmp_path: Path) -> None:
    store, told = Store(tmp_path / "store"), _Told()
    store.root.mkdir()
    row = replace(ROW, source="/p/expected.rs")
    remember_changed(row, frozenset({"one.o"}))
    remember_changed(row, frozenset({"one.o", "two.o"}))
    assert changed_last(row) == {"one.o", "two.o"}
    assert changed_last(replace(row, stem="app-of-other-features")) == frozenset()
    asked: list[Collection[str]] = []

    def running(names: Collection[str]) -> str:
        asked.append(set(names))
        return "digest of the list"

    with seen_early(row, tmp_path, store, running, told):
        told.wait()
    assert told.rows == [("/p/expected.rs", "digest of the list", {})]
    assert asked == [{"one.o", "two.o"}]
