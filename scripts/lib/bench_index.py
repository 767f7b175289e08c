"""How long it takes to know the symbols of an executable: from the file alone, and from what was kept before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench_inputs import make_executable, make_part
from measured import Row, hashing, row_of, times_of

from ipbp.formats.elf_image import read_image
from ipbp.formats.elf_index_cache import IndexCache

SIZES = (1.0, 10.0, 100.0)
TARGETS = {("cold", 100.0): 300.0, ("kept", 100.0): 20.0}
"""Milliseconds for an executable of so many megabytes."""


def measure(folder: Path, sizes: Sequence[float], rounds: int, functions: int = 200) -> Iterator[Row]:
    """Two rows for each size: without and with a kept index. A name is looked up too, so that nothing is put off."""
    part = make_part(folder, functions)
    before: dict[str, Row | None] = {"cold": None, "kept": None}
    for size in sizes:
        program = make_executable(part, size, folder)
        cache = IndexCache(folder / "symbols")
        hashed = hashing([program], rounds)
        for how in before:

            def index(program: Path = program, cache: IndexCache = cache) -> None:
                if not read_image(str(program), cache=cache).symbols.by_name.get(f"p0_work_{functions - 1}"):
                    raise SystemExit(f"{program}: a symbol is not found")

            def forget(cache: IndexCache = cache, how: str = how) -> None:
                if how == "cold":
                    shutil.rmtree(cache.folder, ignore_errors=True)

            times = times_of(index, rounds, forget)
            bytes_, target = program.stat().st_size, TARGETS.get((how, size), 0.0)
            before[how] = row = row_of(f"symbol index, {how}", bytes_, times, hashed, before[how], target=target)
            yield row
        program.unlink()
