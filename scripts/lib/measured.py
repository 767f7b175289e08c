"""Medians of what was done several times, and what else this machine does with the same bytes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds: medians of the time passed and of the processor time of this process, and the least time."""

    median: float
    cpu: float
    least: float


def times_of(act: Callable[[], object], rounds: int, prepare: Callable[[], object] = lambda: None) -> Times:
    """Times of `act`, each time after `prepare`, which is not counted. The first round is not counted either: imports
    and the file cache are warm in an engine that runs."""
    passed, spent = [], []
    for _ in range(rounds + 1):
        prepare()
        start, cpu = time.perf_counter(), time.process_time()
        act()
        spent.append((time.process_time() - cpu) * 1000)
        passed.append((time.perf_counter() - start) * 1000)
    return Times(median(passed[1:]), median(spent[1:]), min(passed[1:]))


def hashing(paths: Sequence[Path], rounds: int) -> Times:
    """Reading these files and their sha256: a measure of the machine, as busy as it is now."""
    return times_of(lambda: [hashlib.sha256(path.read_bytes()).digest() for path in paths], rounds)


@dataclass(frozen=True, slots=True)
class Row:
    """`what` was done to `megabytes`. `per_mb`: of the time; `growth`: milliseconds for each further megabyte, from
    the row of the size before. `x_hash`: the time by that of reading the same bytes and their sha256. `compile`: what
    gcc takes for an object of this size, or 0. `target`: milliseconds that are aimed at, or 0."""

    what: str
    megabytes: float
    median: float
    cpu: float
    least: float
    per_mb: float
    growth: float
    x_hash: float
    compile: float = 0.0
    target: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


HEAD = "                        MB      ms     cpu   least   ms/MB  growth  x sha256  compile   target"


def line(row: Row) -> str:
    compile_ms = f"{row.compile:8.0f}" if row.compile else " " * 8
    target = f"{row.target:8.0f}" if row.target else ""
    numbers = f"{row.megabytes:7.1f} {row.median:7.1f} {row.cpu:7.1f} {row.least:7.1f} {row.per_mb:7.2f}"
    return f"{row.what:19}{numbers} {row.growth:7.2f}  {row.x_hash:8.2f} {compile_ms} {target}".rstrip()


def row_of(
    what: str, size: int, times: Times, hashed: Times, before: Row | None, compile_ms: float = 0.0, target: float = 0.0
) -> Row:
    """The row of one measurement; `before` is that of the next smaller size."""
    megabytes = size / 1e6
    growth = 0.0
    if before is not None and megabytes > before.megabytes:
        growth = (times.median - before.median) / (megabytes - before.megabytes)
    per_mb, ratio = times.median / megabytes, times.median / hashed.median
    return Row(what, megabytes, times.median, times.cpu, times.least, per_mb, growth, ratio, compile_ms, target)
