"""How long the comparison of two objects takes, of which one function differs: reading both, pairing, judging."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench_inputs import make_pair, make_part
from measured import Row, hashing, row_of, times_of

from ipbp.cli.diff import CHANGED, diff

SIZES = (1.0, 10.0, 50.0)
TARGETS = {10.0: 150.0, 50.0: 500.0}
"""Milliseconds for a pair of objects of so many megabytes each."""


def measure(folder: Path, sizes: Sequence[float], rounds: int, functions: int = 200) -> Iterator[Row]:
    """A row for each size of object in megabytes; a part has `functions` functions."""
    part = make_part(folder, functions)
    before = None
    for size in sizes:
        old, new = make_pair(part, size, folder)
        found = diff(old, new)
        if found.status != CHANGED or len(found.functions) != 1 or found.data:
            raise SystemExit(f"the diff of {size} MB is wrong: {found.to_text()}")
        times = times_of(partial(diff, old, new), rounds)
        bytes_ = old.stat().st_size
        compiling = part.compile_ms * bytes_ / part.size
        before = row_of("diff", bytes_, times, hashing([old, new], rounds), before, compiling, TARGETS.get(size, 0.0))
        yield before
        old.unlink()
        new.unlink()
