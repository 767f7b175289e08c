"""What makes an executable large: many units of ordinary code with their debug information, which nothing calls."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench_inputs import Part

_SHARE = 0.56
"""Of an object's size that it adds to an executable."""


def add_bulk(part: Part, megabytes: float, folder: Path) -> Sequence[Path]:
    """Objects for so many megabytes of an executable, each with its own names for what it defines; those that are in
    the folder already are taken."""
    count = round((megabytes - 0.1) * 1e6 / (part.size * _SHARE))
    said = subprocess.run(["nm", "--defined-only", part.plain], capture_output=True, text=True, check=True).stdout
    names = [row.split()[-1] for row in said.splitlines()]
    paths = [folder / f"bulk-{number}.o" for number in range(count)]

    def make(number: int) -> None:
        table = folder / f"names-{number}"
        table.write_text("".join(f"{name} p{number}_{name}\n" for name in names))
        subprocess.run(["objcopy", f"--redefine-syms={table}", part.plain, paths[number]], check=True)
        table.unlink()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make, [number for number, path in enumerate(paths) if not path.exists()]))
    return paths
