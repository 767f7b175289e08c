"""A unit that may differ from what runs is found; one that cannot is left alone."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from build_tree import command, run, set_age, write

from ipbp.build import snapshot
from ipbp.build.command import Command
from ipbp.build.compile import compile_units
from ipbp.build.dirty import dirty
from ipbp.build.snapshot import Snapshot
from ipbp.build.store import Store


@dataclass(frozen=True)
class Patched:
    dependencies: dict[str, str]
    object: str = field(default="0" * 64)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tree(tmp_path):
    """Two units, of which `a` includes a header; built an hour ago: sources, then objects, then the image."""
    root = tmp_path / "tree"
    write(root, {"a.c": '#include "a.h"\nint f(void) { return A; }\n', "a.h": "#define A 1\n", "b.c": "int g;\n"})
    for name in ("a", "b"):
        run("gcc", "-MD", "-c", f"{name}.c", "-o", f"{name}.o", cwd=root)
    write(root, {"image": ""})
    for seconds, names in ((3600, ("a.c", "a.h", "b.c")), (3500, ("a.o", "b.o")), (3400, ("image",))):
        for name in names:
            set_age(root / name, seconds)
    return root


def units(root: Path) -> list[Command]:
    return [command(root, f"gcc -MD -c {n}.c -o {n}.o", f"{n}.c", f"{n}.o") for n in "ab"]


def image_time(root: Path) -> int:
    return (root / "image").stat().st_mtime_ns


def found(root: Path, known=None) -> list[tuple[str, str | None]]:
    rows = dirty(units(root), image_time(root), known or {})
    return [(row.command.source.name, row.old_object.name if row.old_object else None) for row in rows]


def test_untouched_tree_is_clean(tree):
    assert found(tree) == []


@pytest.mark.parametrize(("name", "source"), [("a.c", "a.c"), ("a.h", "a.c"), ("b.c", "b.c")])
def test_edit_finds_its_unit_and_the_old_object(name, source, tree):
    os.utime(tree / name)

    assert found(tree) == [(source, source.replace(".c", ".o"))]


def test_same_tick_as_the_object_counts_as_an_edit(tree):
    stamp = (tree / "a.o").stat().st_mtime_ns
    os.utime(tree / "a.h", ns=(stamp, stamp))

    assert found(tree) == [("a.c", "a.o")]


def test_tree_that_was_rebuilt_has_no_old_object(tree):
    os.utime(tree / "a.o")

    assert found(tree) == [("a.c", None)]


def test_edit_after_a_rebuild_has_no_old_object(tree):
    set_age(tree / "a.o", -3450)
    os.utime(tree / "a.c")

    assert found(tree) == [("a.c", None)]


def test_missing_object_is_judged_by_the_image(tree):
    (tree / "a.o").unlink()
    (tree / "b.o").unlink()
    assert found(tree) == []

    os.utime(tree / "a.h")

    assert found(tree) == [("a.c", None)]


def test_units_without_a_depfile_are_found_by_the_compiler(tree):
    (tree / "a.d").unlink()
    assert found(tree) == []

    os.utime(tree / "a.h")

    assert found(tree) == [("a.c", "a.o")]


def test_unit_whose_headers_cannot_be_listed_is_dirty(tree):
    (tree / "a.d").unlink()
    (tree / "a.h").unlink()

    assert found(tree) == [("a.c", "a.o")]


def digests(root: Path, *names: str) -> dict[str, str]:
    return {str(root / name): Snapshot().digest(str(root / name)) for name in names}


def test_patched_unit_is_judged_by_content_and_never_by_time(tree):
    known = {str(tree / "a.c"): Patched(digests(tree, "a.c", "a.h"))}
    os.utime(tree / "a.c")
    os.utime(tree / "a.o")
    assert found(tree, known) == []

    before = (tree / "a.h").stat()
    (tree / "a.h").write_text("#define A 2\n")
    os.utime(tree / "a.h", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert found(tree, known) == [("a.c", None)]


def test_patched_unit_whose_header_vanished_or_came_back_is_dirty(tree):
    known = {str(tree / "a.c"): Patched({**digests(tree, "a.c"), str(tree / "new.h"): ""})}
    assert found(tree, known) == []

    write(tree, {"new.h": ""})
    assert found(tree, known) == [("a.c", None)]

    gone = {str(tree / "a.c"): Patched(digests(tree, "a.c", "a.h"))}
    (tree / "a.h").unlink()
    assert found(tree, gone) == [("a.c", None)]


def test_each_file_is_looked_at_once_for_a_thousand_units(tree, monkeypatch):
    headers = [f"h{n}.h" for n in range(200)]
    write(tree, dict.fromkeys(headers, ""))
    rows = []
    for number in range(1000):
        name = f"u{number}"
        write(tree, {f"{name}.c": "", f"{name}.o": "", f"{name}.d": f"{name}.o: {name}.c {' '.join(headers)}\n"})
        set_age(tree / f"{name}.c", 10)
        rows.append(command(tree, f"gcc -MD -c {name}.c -o {name}.o", f"{name}.c", f"{name}.o"))
    for header in headers:
        set_age(tree / header, 10)
    looked: list[str] = []
    look = snapshot._time_and_device
    monkeypatch.setattr(snapshot, "_time_and_device", lambda path: looked.append(path) or look(path))

    assert dirty(rows, image_time(tree) + 10**13, {}) == []

    assert len(looked) == len(set(looked)) == 1000 + 1000 + 200 + 1  # objects, sources, headers, their folder


@pytest.mark.parametrize("flags", ["", "-include a.h"])
def test_a_precompiled_header_hides_no_edit(flags, tree):
    precompiled = ["gcc", "-x", "c-header", "a.h", "-o", "a.h.gch"]
    run(*precompiled, cwd=tree)
    run("gcc", "-MD", *flags.split(), "-c", "a.c", "-o", "a.o", cwd=tree)
    for seconds, name in ((3550, "a.h.gch"), (3500, "a.o")):
        set_age(tree / name, seconds)
    assert flags or "a.h" not in (tree / "a.d").read_text(), "gcc lists it now"
    unit = command(tree, f"gcc -MD {flags} -Winvalid-pch -Werror -c a.c -o a.o", "a.c", "a.o")
    assert dirty([unit], image_time(tree), {}) == []
    write(tree, {"a.h": "#define A 77\n"})
    (row,) = dirty([unit], image_time(tree), {})
    (compiled,) = compile_units([row], Store(tree / "store"), lambda _line: None)
    assert str(tree / "a.h") in compiled.dependencies
    assert b"\xb8\x4d\x00\x00\x00" in compiled.object.read_bytes()  # mov eax, 77
