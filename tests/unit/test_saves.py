"""What counts as a save: real files, real events of the kernel."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipbp.build import saves as module
from ipbp.build.saves import Saves

LONG = 20.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.c"
    path.write_text("old")
    return path


@pytest.fixture
def saves(source: Path) -> Iterator[Saves]:
    watched = Saves()
    assert watched.follow([str(source)]) == 1
    yield watched
    watched.close()


def saved(saves: Saves) -> list[str]:
    deadline = time.monotonic() + LONG
    return saves.wait(lambda: time.monotonic() > deadline)


def nothing(saves: Saves) -> bool:
    deadline = time.monotonic() + 0.5
    return saves.wait(lambda: time.monotonic() > deadline) == []


def test_writing_in_place_is_a_save(saves: Saves, source: Path) -> None:
    source.write_text("new")
    assert saved(saves) == [str(source)]


def test_a_rename_over_the_file_is_one_save(saves: Saves, source: Path) -> None:
    fresh = source.with_name("a.tmp")
    fresh.write_text("new")
    fresh.replace(source)
    assert saved(saves) == [str(source)]
    assert nothing(saves)


def test_removing_and_writing_anew_is_one_save_when_it_is_there_again(saves: Saves, source: Path) -> None:
    source.rename(source.with_name("a.c~"))
    source.write_text("new")
    assert saved(saves) == [str(source)]
    assert nothing(saves)


def test_a_file_that_is_being_written_is_not_saved_yet(saves: Saves, source: Path) -> None:
    with source.open("w") as file:
        for _ in range(20):
            file.write("new")
            file.flush()
            assert saves.wait(iter([False, True, True]).__next__) == []
        file.write("end")
    assert saved(saves) == [str(source)]
    assert source.read_text().endswith("end")


def test_several_files_in_a_burst_are_one_save(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.c", "b.c", "c.h")]
    for file in files:
        file.write_text("old")
    watched = Saves()
    watched.follow(map(str, files))
    for file in files:
        file.write_text("new")
    assert saved(watched) == [str(file) for file in files]
    assert nothing(watched)
    watched.close()


def test_neither_reading_nor_other_files_count(saves: Saves, source: Path) -> None:
    source.read_text()
    source.with_name("a.o").write_text("object")
    assert nothing(saves)


def test_a_file_that_comes_later_counts(saves: Saves, source: Path) -> None:
    later = source.with_name("later.c")
    saves.follow([str(source), str(later)])
    later.write_text("new")
    assert saved(saves) == [str(later)]


def test_what_a_link_leads_to_counts_as_the_file(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "a.c", tmp_path / "a.c"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    watched = Saves()
    watched.follow([str(link)])
    real.write_text("new")
    assert saved(watched) == [str(link)]
    watched.close()


def test_a_save_between_two_waits_is_not_lost(saves: Saves, source: Path) -> None:
    source.write_text("new")
    time.sleep(0)
    assert saved(saves) == [str(source)]
    timer = threading.Timer(0.05, lambda: source.write_text("newer"))
    timer.start()
    assert saved(saves) == [str(source)]
    timer.join()


def test_many_folders_are_watched_through_few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_MOST_FOLDERS", 2)
    files = [tmp_path / name / "a.c" for name in (".", "one", "one/more", "two")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("old")
    watched = Saves()
    watched.follow(map(str, files))
    files[2].write_text("new")
    assert saved(watched) == [str(files[2])]
    watched.close()
