"""`ipbp diff OLD.o NEW.o`: what an edit changed, with no process and no debug information needed.

Exit status: 0 something changed that could be patched, 4 nothing changed, 3 refused; errors are raised.
"""

from __future__ import annotations

import argparse
import json
import mmap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipbp.errors import IpbpError, Refusal, Refused
from ipbp.formats.objects import read_any_object
from ipbp.graph.model import BlockKind, LinkGraph
from ipbp.pipeline.readable import readable
from ipbp.stages.compare import Comparison, Status, compare, part_of
from ipbp.stages.correlate import Correlation, correlate

CHANGED, REFUSED, UNCHANGED = 0, 3, 4
"""Exit statuses."""


def add_parser(subparsers: Any) -> None:
    """Add `diff` to the parsers of the `ipbp` command."""
    parser = subparsers.add_parser("diff", help="which functions and variables differ between two object files")
    parser.add_argument("old", type=Path, metavar="OLD.o")
    parser.add_argument("new", type=Path, metavar="NEW.o")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the difference; the exit status."""
    difference = diff(args.old, args.new)
    print(json.dumps(difference.to_json()) if args.json else difference.to_text())
    return difference.status


@dataclass(frozen=True, slots=True)
class Row:
    """One function or variable that is not the same."""

    name: str
    status: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "status": self.status, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two objects. `times`: milliseconds of each stage."""

    functions: tuple[Row, ...]
    data: tuple[Row, ...]
    notes: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    times: dict[str, float]

    @property
    def status(self) -> int:
        if self.refusals:
            return REFUSED
        # What is gone stays in the process, and a new initial value is not applied: neither is a patch.
        patchable = [row for row in self.functions if row.status != "removed"]
        patchable += [row for row in self.data if row.status == "new"]
        return CHANGED if patchable else UNCHANGED

    def to_json(self) -> dict[str, Any]:
        return {
            "functions": [row.to_json() for row in self.functions],
            "data": [row.to_json() for row in self.data],
            "notes": list(self.notes),
            "refusals": [refusal.to_json() for refusal in self.refusals],
            "times": self.times,
        }

    def to_text(self) -> str:
        lines = [f"{row.status:8} {row.name}: {row.reason}" for row in (*self.functions, *self.data)]
        lines += [f"note: {note}" for note in self.notes]
        lines += [str(refusal) for refusal in self.refusals]
        return readable("\n".join(lines or ["nothing changed"]))


def diff(old_path: Path, new_path: Path) -> Diff:
    """The difference of two object files.

    Errors: those of `read_any_object` and `object-unreadable`. What that refuses becomes refusals of the
    result.
    """
    start = time.monotonic()
    graphs: list[LinkGraph] = []
    refusals: list[Refusal] = []
    for path in (old_path, new_path):
        try:
            graphs.append(read_any_object(file_content(path), str(path)))
        except Refused as refused:
            refusals += refused.refusals
    read = time.monotonic()
    if refusals:
        return Diff((), (), (), tuple(refusals), {"read": _ms(start, read)})
    old, new = graphs
    correlation = correlate(old, new)
    correlated = time.monotonic()
    comparison = compare(old, new, correlation)
    compared = time.monotonic()
    functions, data = _rows(old, new, comparison)
    times = {"read": _ms(start, read), "correlate": _ms(read, correlated), "compare": _ms(correlated, compared)}
    refusals = [*comparison.refusals, *_ambiguities(old, new, correlation, comparison)]
    return Diff(functions, data, comparison.notes, tuple(refusals), times)


def file_content(path: Path) -> bytes | mmap.mmap:
    """The bytes of a file, mapped where it has any. Error: `object-unreadable`."""
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise IpbpError("object-unreadable", f"{path}: {error}", "Give the path of an object file.") from error


def _rows(old: LinkGraph, new: LinkGraph, comparison: Comparison) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Functions and variables that have a name; a cold part is told with its function."""
    functions: list[Row] = []
    data: list[Row] = []
    for block, reason in sorted(comparison.reason.items()):
        row = Row(new.block_name(block), Status(comparison.status[block]).name.lower(), reason)
        _add(new, block, row, functions, data)
    for block in comparison.removed:
        _add(old, block, Row(old.block_name(block), "removed", "no longer there"), functions, data)
    return tuple(functions), tuple(data)


def _add(graph: LinkGraph, block: int, row: Row, functions: list[Row], data: list[Row]) -> None:
    name = graph.symbols.name[int(graph.blocks.anchor[block])]
    if not name or part_of(name) is not None:
        return
    (functions if graph.blocks.kind[block] == BlockKind.CODE else data).append(row)


def _ambiguities(old: LinkGraph, new: LinkGraph, correlation: Correlation, comparison: Comparison) -> list[Refusal]:
    """Variables that code to be patched uses and whose old counterpart cannot be told."""
    refusals = []
    for symbol, candidates in correlation.ambiguous:
        users = np.unique(new.edges.block[new.symbols.block[new.edges.target] == new.symbols.block[symbol]])
        if any(comparison.status[user] != Status.SAME for user in users):
            names = ", ".join(f"'{old.symbols.name[candidate]}'" for candidate in candidates)
            refusals.append(
                Refusal(
                    "ambiguous-static",
                    f"'{new.symbols.name[symbol]}' could be any of {names} of the old object",
                    "Give the static variables different names, then build and start the program once more.",
                    new.symbols.name[symbol],
                    new.path,
                )
            )
    return refusals


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
