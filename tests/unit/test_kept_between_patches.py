"""What the engine keeps from one patch to the next is what it would read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ipbp.build.producer import source_units
from ipbp.build.store import Store
from ipbp.kept import Kept
from ipbp.pipeline import stored
from ipbp.pipeline.layouts import types_of_object
from ipbp.pipeline.stored import read_stored


def compiled(folder: Path, text: str, *flags: str) -> Path:
    source, result = folder / "unit.c", folder / "unit.o"
    source.write_text(text)
    subprocess.run(["gcc", "-g", *flags, source, "-o", result], check=True)
    return result


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_the_new_side_of_a_patch_is_the_old_side_of_the_next(tmp_path: Path, store: Store) -> None:
    digest = store.put(compiled(tmp_path, "struct s { int a; }; int f(struct s *s) { return s->a; }", "-c"))
    first = read_stored(digest, store)
    assert read_stored(digest, store) is first
    assert types_of_object(first) is types_of_object(first)
    other = store.put(compiled(tmp_path, "int f(void) { return 2; }", "-c"))
    assert read_stored(other, store) is not first


def test_large_objects_are_not_kept_beside_each_other(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [store.put(compiled(tmp_path, f"int f(void) {{ return {number}; }}", "-c")) for number in range(3)]
    monkeypatch.setattr(stored, "_graphs", Kept(store.get(digests[0]).stat().st_size + 100))
    graphs = [read_stored(digest, store) for digest in digests]
    assert read_stored(digests[2], store) is graphs[2]
    assert read_stored(digests[0], store) is not graphs[0]


def test_a_program_that_was_built_anew_has_the_units_of_the_new_one(tmp_path: Path) -> None:
    program = compiled(tmp_path, "int main(void) { return 0; }")
    assert [unit.name for unit in source_units(program)] == [str(tmp_path / "unit.c")]
    other = tmp_path / "other.c"
    other.write_text("int main(void) { return 1; }")
    subprocess.run(["gcc", "-g", other, "-o", program], check=True)
    assert [unit.name for unit in source_units(program)] == [str(other)]
