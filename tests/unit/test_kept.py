"""What is kept of work that was done: for speed only, within bounds, and of what never changes."""

from __future__ import annotations

import operator
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.command import Command
from ipbp.build.dirty import Dirty
from ipbp.build.store import Store
from ipbp.errors import IpbpError
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.model import BlockKind
from ipbp.graph.rows import is_one_of
from ipbp.kept import Kept, of_the_last
from ipbp.members import packed_list
from ipbp.pipeline import ahead, stored
from ipbp.pipeline import meanwhile as meanwhile_module
from ipbp.pipeline.meanwhile import read_meanwhile
from ipbp.pipeline.record import Record
from ipbp.pipeline.stored import graph_of_file, read_stored


def test_what_was_said_of_the_very_same_value_is_said_again() -> None:
    asked: list[list[int]] = []

    @of_the_last(2)
    def total(of: list[int]) -> int:
        asked.append(of)
        return sum(of)

    rows = [[1, 2], [1, 2], [3]]
    assert [total(row) for row in (rows[0], rows[1], rows[0], rows[1])] == [3, 3, 3, 3]
    assert asked == [rows[0], rows[1]]
    assert [total(row) for row in (rows[2], rows[1], rows[0])] == [3, 3, 3]
    assert len(asked) == 4, "the first one was forgotten"


def test_values_may_be_told_apart_by_a_part_of_them() -> None:
    asked: list[tuple[list[int], str]] = []

    @of_the_last(2, lambda of: of[0])
    def total(of: tuple[list[int], str]) -> int:
        asked.append(of)
        return sum(of[0])

    rows = [1, 2]
    assert [total((rows, "one")), total((rows, "other")), total(([1, 2], "one"))] == [3, 3, 3]
    assert asked == [(rows, "one"), ([1, 2], "one")]


def test_the_ones_that_were_used_last_are_kept_up_to_a_size() -> None:
    kept: Kept[str, str] = Kept(10)
    for key in "abc":
        assert kept.put(key, key.upper(), 3) == key.upper()
    assert kept.get("a") == "A"
    kept.put("d", "D", 4)
    assert [kept.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert kept.put("large", "L", 11) == "L"
    assert [kept.get(key) for key in ("large", "a", "d")] == [None, "A", "D"], "nothing made room for it"
    kept.clear()
    assert kept.get("a") is None


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(stored, "_graphs", Kept(1 << 20))
    (tmp_path / "store").mkdir()
    return Store(tmp_path / "store")


def test_an_object_that_two_versions_of_a_crate_have_is_read_once(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {name: store.put(_compiled(tmp_path, name, value)) for name, value in (("a", 1), ("b", 2), ("c", 3))}
    old = store.put(packed_list([("one.o", digests["a"]), ("two.o", digests["b"])]))
    new = store.put(packed_list([("one.o", digests["a"]), ("two.o", digests["c"])]))
    read: list[str] = []
    monkeypatch.setattr(
        stored, "read_unit", lambda content, path, real=stored.read_unit: read.append(path) or real(content, path)
    )
    before, after = read_stored(old, store, "old"), read_stored(new, store, "new")
    assert read == ["old(one.o)", "old(two.o)", "new(two.o)"]
    assert set(before.symbols.name) >= {"a", "b"}
    assert set(after.symbols.name) >= {"a", "c"}
    alone = read_stored(new, store, "third", {"one.o"})
    assert (alone.path, len(read)) == ("third(one.o)", 3), "messages name what was asked for"
    with pytest.raises(IpbpError):
        read_stored("0" * 64, store)


def _compiled(folder: Path, name: str, value: int) -> bytes:
    source = folder / f"{name}.c"
    source.write_text(f"int {name}(void) {{ return {value}; }}\n")
    subprocess.run(["gcc", "-c", "-ffunction-sections", source, "-o", folder / f"{name}.o"], check=True)
    return (folder / f"{name}.o").read_bytes()


class _Images:
    """A process with one module, whose image takes as long as the test wants."""

    key = "program"

    def __init__(self, error: IpbpError | None = None) -> None:
        self.error, self.began, self.may_go_on, self.is_read = error, threading.Event(), threading.Event(), False

    def scope(self, key: str) -> Any:
        self.began.set()
        self.may_go_on.wait(60)
        if self.error is not None:
            raise self.error
        self.is_read = True
        return self

    def read(self, ranges: object) -> list[bytes | None]:
        return []

    def lookup(self, name: str) -> None:
        return None

    @property
    def image(self) -> Any:
        class Image:
            class symbols:
                by_name: tuple[str, ...] = ()

        return Image


@pytest.mark.parametrize("error", [None, IpbpError("image-malformed", "it is damaged", "Build it again.")])
def test_images_are_read_while_the_first_compiler_runs_and_whole_before_anyone_looks(
    error: IpbpError | None, tmp_path: Path
) -> None:
    images = _Images(error)
    modules = cast("list[Any]", [images])
    with read_meanwhile(modules, cast(LoadedProcess, images), Record(), Store(tmp_path)) as meanwhile:
        assert not images.began.is_set(), "nothing was edited yet"
        meanwhile.images()
        assert images.began.wait(60)
        assert not images.is_read
        meanwhile.images()
        images.may_go_on.set()
    assert images.is_read is (error is None), "who asks for it is told why not"


def test_nothing_is_begun_any_more_when_the_compiler_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, read = _Images(None), list[Path]()
    module = cast(Any, SimpleNamespace(key="program", image=images.image))
    command = Command(tmp_path, tmp_path / "a.c", None, ("gcc",))

    def failing() -> None:
        with read_meanwhile([cast(Any, images)], cast(LoadedProcess, images), Record(), Store(tmp_path)) as meanwhile:
            meanwhile.units(module, [Dirty(command, "edited", tmp_path / "a.o")])
            assert images.began.wait(60)
            threading.Timer(0.1, images.may_go_on.set).start()
            raise IpbpError("compile-failed", "it does not compile", "Correct it.")

    monkeypatch.setattr(meanwhile_module, "graph_of_file", lambda path: read.append(path))
    with pytest.raises(IpbpError, match="it does not compile"):
        failing()
    assert images.is_read, "what was at work is at its end"
    assert read == []


def test_both_sides_of_a_crate_are_worked_out_while_it_is_compiled_and_then_not_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {name: store.put(_compiled(tmp_path, name, value)) for name, value in (("a", 1), ("b", 2), ("c", 3))}
    running = store.put(packed_list([("one.o", digests["a"]), ("two.o", digests["b"])]))
    after = store.put(packed_list([("one.o", digests["a"]), ("two.o", digests["c"])]))
    row = CrateCommand("app", "app-1f2e", "bin", "/p", "/p/target/debug/deps", "/p/main.rs", (), (), (), True)
    module, process = cast(Any, SimpleNamespace(key="k", image=object())), cast(Any, SimpleNamespace(read=None))
    proof = object()
    monkeypatch.setattr(ahead, "attest", lambda old, image, read: proof)
    with read_meanwhile([], process, Record(), store) as meanwhile:
        # The last of these is no unit's: rustc makes it for the linker.
        meanwhile.crate(module, row, running, {"two.o": digests["c"], "shim.o": digests["a"]})
    for name in ("attest", "correlate", "compare"):
        monkeypatch.setattr(ahead, name, None)
    monkeypatch.setattr(stored, "read_unit", None)
    new = read_stored(after, store, row.source, {"two.o"})
    old = read_stored(running, store, members={"two.o"})
    known = meanwhile.ahead
    assert known.attest(old, module.image, process.read) is cast(Any, proof)
    assert "c" in {new.block_name(block) for block in known.pair(old, new).comparison.reason}
    with pytest.raises(TypeError):
        known.pair(old, new, renewed={"c"})  # which is another question


def test_the_object_that_may_run_is_read_and_proved_while_its_successor_is_compiled(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "built").mkdir()
    objects = [tmp_path / "built" / name for name in ("a.o", "gone.o")]
    objects[0].write_bytes(_compiled(tmp_path, "a", 1))
    command = Command(tmp_path, tmp_path / "a.c", None, ("gcc",))
    rows = [Dirty(command, "edited", path) for path in (*objects, None)]
    images, proof = _Images(None), object()
    images.may_go_on.set()
    monkeypatch.setattr(ahead, "attest", lambda old, image, read: proof)
    module = cast(Any, SimpleNamespace(key="program", image=images.image))
    with read_meanwhile([cast(Any, images)], cast(LoadedProcess, images), Record(), store) as meanwhile:
        meanwhile.units(module, rows)
    assert images.is_read, "it is needed for that"
    monkeypatch.setattr(ahead, "attest", None)
    monkeypatch.setattr(stored, "read_unit", None)
    old = graph_of_file(objects[0])
    assert old.path == str(objects[0])
    assert meanwhile.ahead.attest(old, module.image, cast(Any, None)) is cast(Any, proof)
    objects[0].write_bytes(_compiled(tmp_path, "a", 2))
    with pytest.raises(TypeError):
        graph_of_file(objects[0])  # which is another object


def test_one_of_a_few_values_is_what_numpy_says() -> None:
    column = np.arange(40, dtype=np.uint8).reshape(4, 10) % 7
    for values in ((), (3,), (0, 6, 9), np.array([2, 5])):
        assert (is_one_of(column, values) == np.isin(column, values)).all()
    assert is_one_of(np.zeros(0, dtype=np.int64), (1,)).dtype == np.bool_


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_a_member_is_compared_as_its_number(dtype: type[Any]) -> None:
    column = np.array([BlockKind.CODE, BlockKind.BSS, BlockKind.INIT], dtype=dtype)
    assert (column == BlockKind.BSS).tolist() == operator.eq(BlockKind.BSS, column).tolist() == [False, True, False]
    assert (column != BlockKind.BSS).tolist() == operator.ne(BlockKind.BSS, column).tolist() == [True, False, True]
    assert [value == BlockKind.BSS for value in column] == [value in (BlockKind.BSS,) for value in column]
    assert (BlockKind(4), hash(BlockKind.BSS), int(BlockKind.BSS)) == (BlockKind.BSS, 4, 4)
    column[column == BlockKind.BSS] = BlockKind.DATA
    assert np.where(column == BlockKind.DATA, BlockKind.CODE, column).tolist() == [0, 0, 7]
