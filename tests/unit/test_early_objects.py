"""Objects of a crate, told of while their compiler runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.early_objects import EarlyObjects, changed_last, remember_changed
from ipbp.build.store import Store
from ipbp.members import packed_list

ROW = CrateCommand("app", "app-1f2e", "bin", "/p", "/p/target/debug/deps", "/p/main.rs", (), (), (), True)


class _Told:
    """What was told so far, and for which units it was asked what runs."""

    def __init__(self, runs: str) -> None:
        self.runs = runs
        self.rows: list[tuple[str, str, dict[str, str]]] = []
        self.asked: list[Collection[str]] = []

    def early(self, row: CrateCommand, running: str, made: Mapping[str, str]) -> None:
        self.rows.append((row.source, running, dict(made)))

    def running(self, names: Collection[str]) -> str:
        self.asked.append(set(names))
        return self.runs


def _written(folder: Path, **contents: bytes) -> list[Path]:
    """Files of these names, with a dot for a double underscore."""
    paths = [folder / name.replace("__", "-", 1).replace("__", ".") for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return paths


def test_new_objects_are_told_of_with_those_before(tmp_path: Path) -> None:
    store, told = Store(tmp_path / "store"), _Told("digest of the list")
    store.root.mkdir()
    seen = EarlyObjects(ROW, store, told.running, told.early)
    seen.written(_written(tmp_path, app__1f2e__one__0__rcgu__o=b"one", other__1f2e__x__0__rcgu__o=b"of another crate"))
    seen.written(_written(tmp_path, app__1f2e__d=b"no object", app__1f2e__empty__0__rcgu__o=b""))
    seen.written([tmp_path / "app-1f2e.gone.0.rcgu.o"])
    seen.written(_written(tmp_path, app__1f2e__two__0__rcgu__o=b"two"))
    one, two = store.put(b"one"), store.put(b"two")
    assert told.rows == [
        ("/p/main.rs", "digest of the list", {"one.o": one}),
        ("/p/main.rs", "digest of the list", {"one.o": one, "two.o": two}),
    ]
    assert told.asked == [{"one.o"}, {"one.o", "two.o"}]
    assert store.get(one).read_bytes() == b"one"


def test_nothing_is_told_where_it_is_not_known_what_runs(tmp_path: Path) -> None:
    told = _Told("")
    seen = EarlyObjects(ROW, Store(tmp_path), told.running, told.early)
    seen.written(_written(tmp_path, app__1f2e__one__0__rcgu__o=b"one"))
    assert told.asked == [{"one.o"}]
    assert told.rows == []


def test_where_it_is_known_what_to_expect_the_side_that_runs_is_told_of_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.root.mkdir()
    kept = store.put(b"an object that runs")
    runs = store.put(packed_list([("one.o", kept), ("two.o", "0" * 64)]))
    told, row = _Told(runs), replace(ROW, source="/p/expected.rs")
    remember_changed(row, frozenset({"one.o"}))
    remember_changed(row, frozenset({"one.o", "two.o"}))
    assert changed_last(row) == {"one.o", "two.o"}
    assert changed_last(replace(row, stem="app-of-other-features")) == frozenset()
    seen = EarlyObjects(row, store, told.running, told.early)
    seen.expected()
    assert told.rows == [("/p/expected.rs", runs, {})]
    assert told.asked == [{"one.o", "two.o"}]
    assert seen.there == {kept}
