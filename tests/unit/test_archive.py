"""Archives are read as ar writes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from running_program import compile_object

from ipbp.archive import NotAnArchive, defined_names, members

LONG = "a-name-that-is-longer-than-fifteen-characters.o"


def content_of(archive: bytes) -> dict[str, bytes]:
    return {name: bytes(row) for name, row in members(archive)}


def packed(folder: Path, options: str = "rcS", **contents: bytes) -> bytes:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    subprocess.run(["ar", options, "packed.a", *contents], cwd=folder, check=True)
    return (folder / "packed.a").read_bytes()


def test_members_of_any_size_and_name(tmp_path: Path) -> None:
    rows = {"a.o": b"odd", LONG: b"even", "empty.o": b""}
    assert content_of(packed(tmp_path, **rows)) == rows


def test_an_archive_of_ar_is_read_with_its_index(tmp_path: Path) -> None:
    one = compile_object(tmp_path, "one", "int first; int second(void) { return 2; }")
    two = compile_object(tmp_path, LONG[:-2], "int third(void) { return 3; } static int fourth(void) { return 4; }")
    subprocess.run(["ar", "rcs", "all.a", one.name, two.name], cwd=tmp_path, check=True)
    archive = (tmp_path / "all.a").read_bytes()
    assert content_of(archive) == {"one.o": one.read_bytes(), LONG: two.read_bytes()}
    assert defined_names(archive) == {"first": "one.o", "second": "one.o", "third": LONG}


def test_an_archive_without_an_index_defines_nothing_that_is_known(tmp_path: Path) -> None:
    assert defined_names(packed(tmp_path, **{"a.o": b"x"})) == {}


@pytest.mark.parametrize("cut", [5, 20, 70, 75])
def test_what_was_cut_short_is_no_archive(tmp_path: Path, cut: int) -> None:
    whole = packed(tmp_path, **{"a.o": b"content!"})
    assert len(whole) > cut
    with pytest.raises(NotAnArchive):
        content_of(whole[:cut] if cut != 75 else whole[:-2])
