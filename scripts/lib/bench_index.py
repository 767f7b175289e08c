"""How long it takes to know the symbols of an executable: from the file alone, and from what was kept before.

Of executables of a growing size, and of one that is small but has as many symbols as the largest programs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench_inputs import make_executable, make_named, make_part
from measured import Row, hashing, row_of, times_of

from ipbp.formats.elf_image import read_image
from ipbp.formats.elf_index_cache import IndexCache

SIZES = (1.0, 10.0, 100.0)
TARGETS = {("cold", 100.0): 300.0, ("kept", 100.0): 20.0}
"""Milliseconds for an executable of so many megabytes."""
SYMBOLS = 350_000
NAMED = {"cold": 300.0, "kept": 20.0}
"""Milliseconds for so many symbols."""


def measure(folder: Path, sizes: Sequence[float], rounds: int, functions: int = 200) -> Iterator[Row]:
    """Two rows for each executable: without and with a kept index. A name is looked up too, so that nothing is put
    off."""
    part = make_part(folder, functions)
    before: dict[str, Row | None] = {}
    for size in sizes:
        program = make_executable(part, size, folder)
        targets = {how: TARGETS.get((how, size), 0.0) for how in NAMED}
        for how, row in _rows("symbol index", program, f"p0_work_{functions - 1}", rounds, targets, before):
            before[how] = row
            yield row
        program.unlink()
    for _how, row in _rows(f"{SYMBOLS // 1000}k symbols", make_named(SYMBOLS, folder), "_start", rounds, NAMED, {}):
        yield row


def _rows(
    what: str, program: Path, wanted: str, rounds: int, targets: Mapping[str, float], before: Mapping[str, Row | None]
) -> Iterator[tuple[str, Row]]:
    cache = IndexCache(program.parent / "symbols")
    hashed = hashing([program], rounds)
    for how, target in targets.items():

        def index() -> None:
            if not read_image(str(program), cache=cache).symbols.by_name.get(wanted):
                raise SystemExit(f"{program}: a symbol is not found")

        def forget(how: str = how) -> None:
            if how == "cold":
                shutil.rmtree(cache.folder, ignore_errors=True)

        times = times_of(index, rounds, forget)
        yield how, row_of(f"{what}, {how}", program.stat().st_size, times, hashed, before.get(how), target=target)
