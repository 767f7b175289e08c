"""Two build trees and nothing else become a patch file, or a refusal with the reason."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from ipbp.build.store import user_store
from ipbp.cli import main
from ipbp.errors import IpbpError, Refused
from ipbp.patch_file import PatchFile, pack, read_patch_file
from ipbp.pipeline.build_trees import patch_of_trees

FILES = {
    "main.c": """
#include <stdio.h>
#include "shared.h"
int area(struct box *b);
int helped(int x);
int count = 3;
__attribute__((noinline)) int body(int x) { return x + SCALE; }
int main(void) { struct box b = {2, 3}; printf("%d %d %d\\n", body(count), area(&b), helped(1)); return 0; }
""",
    "area.c": '#include "shared.h"\nint area(struct box *b) { return b->w * b->h; }\n',
    "help.c": "static int calls;\nint helped(int x) { calls += 1; return x + calls; }\n",
    "shared.h": "#define SCALE 1\nstruct box { int w, h; };\n",
}


def build(
    folder: Path, changes: Mapping[str, str] | None = None, link: Sequence[str] = (), library: bool = False
) -> Path:
    """A tree, always compiled at the same path, so that the debug information of two of them names the same sources.
    `library`: help.c comes out of a static one, whose object is removed."""
    at = folder.parent / "src"
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir()
    for name, text in {**FILES, **(changes or {})}.items():
        if text:
            (at / name).write_text(text)
    objects = []
    for source in sorted(at.glob("*.c")):
        made = f"{source.stem}.o"
        subprocess.run(["gcc", "-O1", "-g", "-c", source.name, "-o", made], cwd=at, check=True)
        objects.append(made)
    if library:
        subprocess.run(["ar", "rcs", "libhelp.a", "help.o"], cwd=at, check=True)
        (at / "help.o").unlink()
        objects = [*(name for name in objects if name != "help.o"), "libhelp.a"]
    subprocess.run(["gcc", *objects, *link, "-o", "program"], cwd=at, check=True)
    shutil.copytree(at, folder)
    return folder


def patch(old: Path, new: Path, *, allow_missing: bool = False, allow_layout: Sequence[str] = ()) -> PatchFile | None:
    return patch_of_trees(old, new, allow_layout, allow_missing, user_store(), lambda _text: None)


def functions(found: PatchFile | None) -> set[tuple[str, str]]:
    assert found is not None
    return {(row.name, row.status) for row in found.functions}


def codes(act: Callable[[], object]) -> list[str]:
    with pytest.raises(Refused) as caught:
        act()
    return [row.code for row in caught.value.refusals]


@pytest.fixture(autouse=True)
def folder_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("trees") / "old")


BODY = {"main.c": FILES["main.c"].replace("x + SCALE", "x * 7 + SCALE")}


def test_an_edited_function_is_in_it_with_the_build_that_it_fits(old: Path, tmp_path: Path) -> None:
    found = patch(old, build(tmp_path / "new", BODY))
    assert functions(found) == {("body", "changed")}
    assert found is not None
    notes = subprocess.run(["readelf", "-n", old / "program"], check=True, capture_output=True, text=True).stdout
    assert f"Build ID: {found.images[0].build_id}\n" in notes
    assert found.images[0].is_executable
    assert [Path(row.name).name for row in found.units] == ["main.c"]
    assert all(row.old and row.new for row in found.units)


def test_the_program_alone_may_be_named(old: Path, tmp_path: Path) -> None:
    assert functions(patch(old / "program", build(tmp_path / "new", BODY) / "program")) == {("body", "changed")}


def test_an_edit_of_a_header_is_in_all_of_its_users(old: Path, tmp_path: Path) -> None:
    changes = {"shared.h": FILES["shared.h"].replace("SCALE 1", "SCALE 9\n#define area_of(b) (b->w * b->h + SCALE)")}
    changes["area.c"] = FILES["area.c"].replace("b->w * b->h", "area_of(b)")
    assert functions(patch(old, build(tmp_path / "new", changes))) == {("body", "changed"), ("area", "changed")}


def test_trees_that_differ_in_comments_make_no_patch(old: Path, tmp_path: Path) -> None:
    new = build(tmp_path / "new", {"help.c": FILES["help.c"] + "/* a comment */\n"})
    assert patch(old, new) is None
    file = tmp_path / "none.patch"
    assert main.main(["build-patch", str(old), str(new), "-o", str(file)]) == 4
    assert not file.exists()


def test_a_new_file_and_a_function_that_moved_there(old: Path, tmp_path: Path) -> None:
    changes = {
        "help.c": "int more(int);\nint other(void) { return more(1); }\n",
        "more.c": "static int calls;\nint more(int x) { return x * 3; }\n"
        "int helped(int x) { calls += 1; return x + calls + more(x); }\n",
    }
    found = patch(old, build(tmp_path / "new", changes))
    assert {("helped", "changed"), ("more", "new"), ("other", "new")} <= functions(found)
    assert found is not None
    assert {Path(row.name).name: row.is_newcomer for row in found.units} == {"help.c": False, "more.c": True}
    assert "calls" not in found.data  # it is the one that there is


def test_a_member_of_a_static_library_counts(tmp_path: Path) -> None:
    before = build(tmp_path / "old", library=True)
    after = build(tmp_path / "new", {"help.c": FILES["help.c"].replace("x + calls", "x - calls")}, library=True)
    assert functions(patch(before, after)) == {("helped", "changed")}


def test_a_program_that_was_not_linked_from_the_objects_is_refused(old: Path, tmp_path: Path) -> None:
    new = build(tmp_path / "new", BODY)
    stale = build(tmp_path / "stale", {"main.c": FILES["main.c"].replace("x + SCALE", "x - SCALE")})
    shutil.copy(old / "program", stale / "program")
    assert "object-not-linked" in codes(lambda: patch(stale, new))
    shutil.copy(build(tmp_path / "third", {"main.c": FILES["main.c"].replace("x +", "x /")}) / "main.o", new / "main.o")
    assert "object-not-linked" in codes(lambda: patch(old, new))


def test_a_unit_whose_object_is_not_in_the_tree_is_refused(old: Path, tmp_path: Path) -> None:
    before, new = shutil.copytree(old, tmp_path / "before"), build(tmp_path / "new", BODY)
    for tree in (before, new):
        (tree / "area.o").unlink()
    with pytest.raises(Refused, match=r"area\.c") as caught:
        patch(before, new)
    assert [row.code for row in caught.value.refusals] == ["objects-missing"]
    assert functions(patch(before, new, allow_missing=True)) == {("body", "changed")}


def test_an_object_that_is_gone_is_refused(old: Path, tmp_path: Path) -> None:
    changes = {"help.c": "", "main.c": FILES["main.c"].replace("int helped(int x);", "int helped(int x) { return x; }")}
    assert codes(lambda: patch(old, build(tmp_path / "new", changes))) == ["object-gone"]


def test_what_a_process_would_be_refused_for_is_refused(old: Path, tmp_path: Path) -> None:
    wider = {"shared.h": FILES["shared.h"].replace("int w, h;", "long w; int h;")}
    new = build(tmp_path / "new", wider)
    assert "layout-changed" in codes(lambda: patch(old, new))
    assert ("area", "changed") in functions(patch(old, new, allow_layout=["all"]))
    larger = {"main.c": FILES["main.c"].replace("int count = 3;", "long count = 3;")}
    assert "data-size-changed" in codes(lambda: patch(old, build(tmp_path / "larger", larger)))


def test_a_program_without_a_build_id_is_refused(tmp_path: Path) -> None:
    before, after = (build(tmp_path / name, rows, ["-Wl,--build-id=none"]) for name, rows in (("a", {}), ("b", BODY)))
    assert codes(lambda: patch(before, after)) == ["no-build-id"]


def test_folders_without_a_program_or_that_are_not_there(old: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, code in ((tmp_path / "empty", "build-tree-empty"), (tmp_path / "none", "build-tree-unreadable")):
        with pytest.raises(IpbpError) as caught:
            patch(path, old)
        assert caught.value.code == code


def test_the_command_writes_the_same_file_twice_and_says_what_is_in_it(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, file, again = build(tmp_path / "new", BODY), tmp_path / "fix.patch", tmp_path / "again.patch"
    assert main.main(["build-patch", str(old), str(new), "-o", str(file), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["outcome"] == "ok"
    assert [function["name"] for function in row["functions"]] == ["body"]
    assert main.main(["build-patch", str(old), str(new), "-o", str(again)]) == 0
    assert file.read_bytes() == again.read_bytes() == pack(read_patch_file(file))
    (tmp_path / "folder").mkdir()
    assert main.main(["build-patch", str(old), str(new), "-o", str(tmp_path / "folder")]) == 1
    wide = build(tmp_path / "wide", {"shared.h": FILES["shared.h"].replace("int w, h;", "long w; int h;")})
    assert main.main(["build-patch", str(old), str(wide), "-o", str(file), "--json"]) == 3
    assert file.read_bytes() == again.read_bytes()
