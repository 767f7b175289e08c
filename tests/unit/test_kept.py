"""What is kept of work that was done: for speed only, within bounds, and of what never changes."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from ipbp.build.store import Store
from ipbp.errors import IpbpError
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.rows import is_one_of
from ipbp.kept import Kept
from ipbp.members import packed_list
from ipbp.pipeline import stored
from ipbp.pipeline.meanwhile import read_meanwhile
from ipbp.pipeline.stored import read_stored


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

    def lookup(self, name: str) -> None:
        return None

    @property
    def image(self) -> Any:
        class Image:
            class symbols:
                by_name: tuple[str, ...] = ()

        return Image


@pytest.mark.parametrize("error", [None, IpbpError("image-malformed", "it is damaged", "Build it again.")])
def test_images_are_read_while_the_first_compiler_runs_and_whole_before_anyone_looks(error: IpbpError | None) -> None:
    images, said = _Images(error), list[str]()
    modules = cast("list[Any]", [images])
    with read_meanwhile(modules, cast(LoadedProcess, images), said.append) as tell:
        assert not images.began.is_set(), "nothing was edited yet"
        tell("compiling one")
        assert images.began.wait(60)
        assert not images.is_read
        tell("compiling two")
        images.may_go_on.set()
    assert images.is_read is (error is None), "who asks for it is told why not"
    assert said == ["compiling one", "compiling two"]


def test_one_of_a_few_values_is_what_numpy_says() -> None:
    column = np.arange(40, dtype=np.uint8).reshape(4, 10) % 7
    for values in ((), (3,), (0, 6, 9), np.array([2, 5])):
        assert (is_one_of(column, values) == np.isin(column, values)).all()
    assert is_one_of(np.zeros(0, dtype=np.int64), (1,)).dtype == np.bool_
