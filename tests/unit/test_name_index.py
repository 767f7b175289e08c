"""The index of names finds what a dictionary would; a kept one is the one that was kept, or is not used."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipbp.formats import elf_index_cache
from ipbp.formats.elf_image import read_image
from ipbp.formats.elf_index_cache import IndexCache
from ipbp.graph.image import ImageSymbols
from ipbp.graph.name_index import NameIndex
from ipbp.graph.names import Names
from ipbp.graph.rows import byte_rows, hash_of, hashes

NAME = st.one_of(
    st.sampled_from(
        ["", "main", "mai", "main ", "a", "_ZN1aC1Ev", "x" * 5000, "\udcff\udcfe", "n\u00e4me", "12345678"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
NAMES = st.lists(NAME, max_size=40)

SOURCE = """
static int own; int shared = 3; __thread int per_thread = 4;
__attribute__((noinline)) static int twice(int x) { return x * 2 + own++; }
int main(int argc, char **argv) { return twice(argc) + shared + per_thread; }
"""


def rows_one_by_one(names: list[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        found.setdefault(name, []).append(row)
    return found


@given(st.lists(st.binary(max_size=40)))
def test_the_hash_of_one_is_that_of_the_column(strings: list[bytes]) -> None:
    assert hashes(byte_rows(strings)).tolist() == [hash_of(string) for string in strings]


def test_names_that_are_hashed_in_another_order_are_found_where_they_are() -> None:
    before = Names.of([f"name {n % 40}" for n in range(100)])
    row = np.random.default_rng(1).permutation(100)
    names = before.take(row)
    index, plain = NameIndex(names, before=(before, row)), NameIndex(names)
    assert [index[name] for name in names] == [plain[name] for name in names]
    assert (index.columns()[0] == plain.columns()[0]).all()


@given(NAMES, NAMES)
def test_the_index_finds_what_a_dictionary_finds(names: list[str], wanted: list[str]) -> None:
    index, known = NameIndex(Names.of(names)), rows_one_by_one(names)
    assert dict(index) == known
    assert len(index) == len(known)
    assert [list(index.get(name, ())) for name in wanted] == [known.get(name, []) for name in wanted]
    assert [name in index for name in wanted] == [name in known for name in wanted]
    one, other = index.pairs(Names.of(wanted))
    expected = [(number, row) for number, name in enumerate(wanted) for row in known.get(name, ())]
    assert list(zip(one.tolist(), other.tolist(), strict=True)) == expected


def test_the_hash_of_one_is_that_of_a_long_column_of_all_lengths() -> None:
    strings = [bytes((n + at) % 256 for at in range(n // 2)) for n in range(600)]
    assert hashes(byte_rows(strings)).tolist() == [hash_of(string) for string in strings]


@given(NAMES, NAMES)
def test_colliding_hashes_find_nothing_else(names: list[str], wanted: list[str]) -> None:
    same = NameIndex(Names.of(names), (np.full(len(names), 7, dtype=np.uint64), np.arange(len(names))))
    known = rows_one_by_one(names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ipbp.graph.name_index.hash_of", lambda content: 7)
        patch.setattr("ipbp.graph.name_index.hashes", lambda rows: np.full(len(rows), 7, dtype=np.uint64))
        assert [list(same.get(name, ())) for name in wanted] == [known.get(name, []) for name in wanted]
        _one, other = same.pairs(Names.of(wanted))
        assert other.tolist() == [row for name in wanted for row in known.get(name, ())]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "program"
    words = ["gcc", "-g", "-x", "c", "-", "-o", str(path), "-Wl,--build-id"]
    subprocess.run(words, input=SOURCE.encode(), check=True, timeout=60)
    return path


def columns(symbols: ImageSymbols) -> list[object]:
    plain = (symbols.address, symbols.size, symbols.binding, symbols.type, symbols.file)
    return [list(symbols.name), symbols.files, *(column.tolist() for column in plain), dict(symbols.by_name)]


def test_kept_symbols_are_those_that_were_read(program: Path, tmp_path: Path) -> None:
    cache, want = IndexCache(tmp_path / "symbols"), columns(read_image(str(program), 0x10000).symbols)
    assert columns(read_image(str(program), 0x10000, cache=cache).symbols) == want
    (kept,) = cache.folder.iterdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("ipbp.formats.elf_image.static_rows")  # nothing reads the symbol table any more
        assert columns(read_image(str(program), 0x10000, cache=cache).symbols) == want
    assert kept.stat().st_mode & 0o077 == 0
    assert cache.folder.stat().st_mode & 0o077 == 0


def test_a_kept_index_is_not_used_for_another_build(program: Path, tmp_path: Path) -> None:
    cache = IndexCache(tmp_path / "symbols")
    read_image(str(program), cache=cache)
    other = tmp_path / "other"
    stripped = ["objcopy", "--strip-symbol=shared", str(program), str(other)]  # of the same build id
    subprocess.run(stripped, check=True, timeout=60)
    assert read_image(str(program), cache=cache).symbols.by_name.get("shared")
    assert not read_image(str(other), cache=cache).symbols.by_name.get("shared")


def test_a_program_without_a_build_id_is_not_kept(program: Path, tmp_path: Path) -> None:
    cache, plain = IndexCache(tmp_path / "symbols"), tmp_path / "plain"
    subprocess.run(["objcopy", "--remove-section=.note.gnu.build-id", program, plain], check=True, timeout=60)
    assert read_image(str(plain), cache=cache).symbols.by_name["main"]
    assert not cache.folder.exists()


def test_every_damaged_index_is_read_anew(program: Path, tmp_path: Path) -> None:
    cache, want = IndexCache(tmp_path / "symbols"), columns(read_image(str(program)).symbols)
    read_image(str(program), cache=cache)
    (kept,) = cache.folder.iterdir()
    good = kept.read_bytes()
    damaged = [b"", good[:7], good[:40], good[:-8], good + bytes(8), bytes(len(good))]
    damaged += [good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :] for at in range(0, len(good), len(good) // 150)]
    for content in damaged:
        kept.write_bytes(content)
        assert columns(read_image(str(program), cache=cache).symbols) == want
        assert kept.read_bytes() == good


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(program: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = IndexCache(tmp_path / "file" / "symbols")
    assert read_image(str(program), cache=cache).symbols.by_name["main"]


def test_what_was_not_used_for_longest_is_pruned(program: Path, tmp_path: Path) -> None:
    cache = IndexCache(tmp_path / "symbols")
    cache.folder.mkdir()
    for number in range(4):
        path = cache.folder / f"{number}.symbols"
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elf_index_cache, "_KEPT_FILES", 3)
        read_image(str(program), cache=cache)
    left = {path.name for path in cache.folder.iterdir()}
    assert len(left) == 3
    assert {"2.symbols", "3.symbols"} < left
