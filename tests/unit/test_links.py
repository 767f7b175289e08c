"""Hard links that take the place of other files, and the script that makes them in the place of a linker."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.codegen_units import made_objects
from ipbp.build.links import put_empty, put_link
from ipbp.build.rustc_replay import prepare, replay_environment
from ipbp.build.workshop import Workshop
from ipbp.errors import IpbpError


def test_what_a_link_replaces_is_freed_when_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "made", tmp_path / "kept"
    source.write_text("new")
    target.write_text("old")
    names: list[int] = []
    replace = os.replace

    def watched(old: Path, new: Path) -> None:
        names.append(os.stat(new).st_nlink)
        replace(old, new)

    monkeypatch.setattr(os, "replace", watched)
    put_link(source, target)
    assert names == [2], "the kernel frees a file with the last of its names"
    assert target.samefile(source)
    _wait_until_only(tmp_path, {"made", "kept"})
    assert target.read_text() == "new"


def test_what_a_process_left_that_was_ended_is_no_hindrance(tmp_path: Path) -> None:
    for name in ("made", "kept", "kept.old", "fresh.old"):
        (tmp_path / name).write_text(name)
    for name in ("kept", "fresh"):
        put_link(tmp_path / "made", tmp_path / name)
        assert (tmp_path / name).samefile(tmp_path / "made")
    _wait_until_only(tmp_path, {"made", "kept", "fresh"})


def test_an_empty_folder_takes_the_place_of_a_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "objects/app"
    folder.mkdir(parents=True)
    (folder / "a.o").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_: None)  # the process ends before
        put_empty(folder)
    assert [path.name for path in folder.iterdir()] == []
    assert (folder.parent / "app.old/a.o").exists(), "nobody waits for that"
    (folder / "b.o").write_text("newer")
    put_empty(folder)
    assert [path.name for path in folder.iterdir()] == []
    put_empty(folder.parent / "fresh/one")
    assert (folder.parent / "fresh/one").is_dir()
    _wait_until_only(folder.parent, {"app", "fresh"})


def _wait_until_only(folder: Path, names: set[str]) -> None:
    end = time.monotonic() + 30
    while {path.name for path in folder.iterdir()} != names:
        assert time.monotonic() < end, list(folder.iterdir())
        time.sleep(0.01)


RUSTC = ("rustc", "--crate-name", "app", "src/main.rs", "--crate-type", "bin")
CRATE = CrateCommand("app", "app-a1", "bin", "/", "/target/deps", "/src/main.rs", RUSTC, (), (), True)


def test_the_stand_in_for_a_linker_keeps_all_objects_with_one_program(tmp_path: Path) -> None:
    workshop, calls, crate = Workshop(tmp_path / "work shop"), tmp_path / "calls", CRATE
    workshop.folder.mkdir()
    workshop.linker.write_text("#!/bin/sh\nexit 1 # of an older version\n")
    prepare(workshop, crate)
    objects = [tmp_path / f"app{' *' * (number % 3)}.{number}.rcgu.o" for number in range(300)]
    for path in objects:
        path.write_text(path.name)
    (workshop.objects(crate) / objects[7].name).write_text("of the compile before")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ln").write_text(f'#!/bin/sh\necho ln >> "{calls}"\nexec {shutil.which("ln")} "$@"\n')
    (tmp_path / "bin/ln").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "IPBP_OBJECTS": str(workshop.objects(crate)),
        "IPBP_KEEP": "1",
    }
    line = [workshop.linker, "-m64", *objects[:150], "-Wl,--as-needed", *objects[150:], "libstd.rlib", "-o", "app"]
    subprocess.run(line, env=environment, check=True)
    assert linked(workshop) == list(map(str, line[1:]))
    workshop.linked(crate).unlink()
    kept = {path.name: path.read_text() for path in workshop.objects(crate).iterdir()}
    assert kept == {path.name: path.name for path in objects}
    assert calls.read_text() == "ln\n"
    odd = tmp_path / "of two\nlines.rcgu.o"
    odd.write_text("kept as well")
    subprocess.run([workshop.linker, objects[0], odd], env=environment, check=True)
    assert (workshop.objects(crate) / odd.name).read_text() == "kept as well"
    subprocess.run([workshop.linker, "-o", "nothing to link"], env=environment, check=True)
    done = subprocess.run([workshop.linker, "@list"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "@list" in done.stderr


def linked(workshop: Workshop) -> list[str]:
    return workshop.linked(CRATE).read_text().split("\0")[:-2]


def test_where_rustc_keeps_the_objects_they_are_only_written_down(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path / "workshop")
    words = (*RUSTC, "-C", "extra-filename=-a1", "-C", f"incremental={workshop.incremental}")
    crate = replace(CRATE, arguments=words)
    prepare(workshop, crate)
    session = workshop.incremental / "app-1x2/s-time-random-hash"
    session.mkdir(parents=True)
    files = [str(tmp_path / f"app-a1.{unit}.0k1.rcgu.o") for unit in ("one", "two\nlines", "allocator")]
    for name in ("one.o", "two\nlines.o"):
        (session / name).write_text(name)
    environment = {**replay_environment(crate, workshop, keeps=False), "PATH": "/nowhere"}
    subprocess.run([workshop.linker, "-m64", *files, "libstd.rlib", "-o", "app"], env=environment, check=True)
    assert linked(workshop) == ["-m64", *files, "libstd.rlib", "-o", "app"]
    made = {row.name: row.path for row in made_objects(crate, workshop)}
    assert made == {name: str(session / name) for name in ("one.o", "two\nlines.o")}
    (session / "one.o").rename(session / "other.o")  # it is the session of another compile
    with pytest.raises(IpbpError) as raised:
        made_objects(crate, workshop)
    assert raised.value.code == "crate-without-objects"
