"""Every figure that the project claims, measured on this machine; see the files beside this one for what is done.

`live`: from an edit to the new code at work in a program that runs, beside what a user does instead. `growth`: that and
the stop by the number of changed functions, of threads, and the size of the executable. `diff`: comparing two objects.
`index`: knowing the symbols of an executable. `stop`: how long a patch stops a busy program. `symbols`: telling the
debugger of a patch. `rust`: from an edit of a crate to a plan, without rustc's own time. `threads`: what a new
thread-local variable costs. `types`: knowing and comparing the layouts of a unit's types.
Figures of a busy machine say little by themselves, so each is shown beside something that is not ours, where there is
such a thing: the sha256 of the same bytes, the compiler, a prototype in the same debugger, a bare ptrace program.

`table` is what docs/performance.md is made of: `live`, `growth`, `diff` and `index`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bench_diff
import bench_growth
import bench_index
import bench_live
import bench_page
import bench_rust
import bench_stop
import bench_symbols
import bench_threads
import bench_types
import measured
from bench_machine import machine

DEBUGGERS = ("gdb", "lldb")
TABLE = ("live", "growth", "diff", "index", "symbols", "types")


@dataclass(frozen=True)
class Part:
    """`rows` measures in a folder that is thrown away; `line` shows one of them."""

    head: str
    rows: Callable[[argparse.Namespace, Path], Iterator[Any]]
    line: Callable[[Any], str]


def _sizes(arguments: argparse.Namespace, usual: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(map(float, arguments.sizes.split(","))) if arguments.sizes else usual


def _stop(arguments: argparse.Namespace, folder: Path) -> Iterator[bench_stop.Row]:
    for debugger in arguments.debuggers:
        yield from bench_stop.measure(debugger, arguments.rounds)


def _growth(arguments: argparse.Namespace, folder: Path) -> Iterator[bench_growth.Row]:
    for what in arguments.of:
        measure, usual = bench_growth.PARTS[what]
        yield from measure(arguments.debuggers, arguments.rounds, arguments.counts or usual)


PARTS = {
    "live": Part(
        bench_live.HEAD,
        lambda a, folder: bench_live.measure(a.cases, a.debuggers, a.rounds, a.lines),
        bench_live.line,
    ),
    "growth": Part(bench_growth.HEAD, _growth, bench_growth.line),
    "diff": Part(
        measured.HEAD,
        lambda a, folder: bench_diff.measure(folder, _sizes(a, bench_diff.SIZES), a.rounds, a.functions),
        measured.line,
    ),
    "index": Part(
        measured.HEAD,
        lambda a, folder: bench_index.measure(folder, _sizes(a, bench_index.SIZES), a.rounds, a.functions),
        measured.line,
    ),
    "stop": Part(bench_stop.HEAD, _stop, bench_stop.line),
    "symbols": Part(
        bench_symbols.HEAD,
        lambda a, folder: bench_symbols.measure(a.debuggers, _sizes(a, bench_symbols.SIZES), a.rounds),
        bench_symbols.line,
    ),
    "rust": Part(bench_rust.HEAD, lambda a, folder: bench_rust.rows(folder, a.rounds, a.lines), bench_rust.line),
    "threads": Part(bench_threads.HEAD, lambda a, folder: bench_threads.measure(a.rounds), bench_threads.line),
    "types": Part(bench_types.HEAD, lambda a, folder: bench_types.measure(folder, a.rounds), bench_types.line),
}
_OWN_CACHE = ("live", "growth", "rust")


def main() -> int:
    arguments = _arguments()
    if arguments.page:
        bench_page.write(json.loads(Path(arguments.page).read_text()))
        return 0
    everything: dict[str, Any] = {"machine": machine(), "rounds": arguments.rounds}
    for name in arguments.parts:
        rows = []
        _say(arguments, PARTS[name].head)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ipbp-bench-")))
            if name in _OWN_CACHE:
                stack.enter_context(bench_rust.own_cache(folder))
            for row in PARTS[name].rows(arguments, folder):
                rows.append(row)
                _say(arguments, PARTS[name].line(row))
        everything[name] = {"rows": [asdict(row) for row in rows]}
        if name == "stop":
            everything[name]["allowed"] = bench_stop.ALLOWED
    if arguments.json:
        print(json.dumps(everything))
    if arguments.save:
        Path(arguments.save).write_text(json.dumps(everything, indent=1) + "\n")
    if arguments.write:
        bench_page.write(everything)
    stops = everything.get("stop", {"rows": ()})["rows"]
    return 0 if all(row["ratio"] <= bench_stop.ALLOWED for row in stops) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure ipbp on this machine; status 1 when a stop is too long.")
    parser.add_argument("what", nargs="*", metavar="|".join(("table", *PARTS, *DEBUGGERS)), help="parts, debuggers")
    parser.add_argument("--rounds", type=int, default=7, help="measurements, or patches, for each figure (7)")
    parser.add_argument("--cases", default=",".join(bench_live.CASES), help="of live (%(default)s)")
    parser.add_argument("--of", default=",".join(bench_growth.PARTS), help="growth of what (%(default)s)")
    parser.add_argument("--counts", type=_numbers, help="of functions, threads or megabytes, with commas, for growth")
    parser.add_argument("--sizes", help="megabytes for diff and index, smallest first, with commas between them")
    parser.add_argument("--functions", type=int, default=200, help="in the source that objects are made of (200)")
    parser.add_argument("--lines", type=int, default=50_000, help="of the large crate of rust and live (50000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--save", metavar="FILE", help="put that JSON there, too")
    parser.add_argument("--write", action="store_true", help="make docs/performance.md and its pictures of it")
    parser.add_argument("--page", metavar="FILE", help="measure nothing; make the page of a saved file")
    arguments = parser.parse_args()
    unknown = set(arguments.what) - {"table", *PARTS, *DEBUGGERS}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    for option, known in (("cases", bench_live.CASES), ("of", bench_growth.PARTS)):
        chosen = getattr(arguments, option).split(",")
        if not set(chosen) <= known.keys():
            parser.error(f"--{option}: choose of {', '.join(known)}")
        setattr(arguments, option, chosen)
    arguments.debuggers = [name for name in DEBUGGERS if name in arguments.what] or list(DEBUGGERS)
    named = {*arguments.what, *(TABLE if "table" in arguments.what else ())}
    arguments.parts = [part for part in PARTS if part in named]
    if not arguments.parts:  # a debugger alone, or nothing
        arguments.parts = ["stop"] if arguments.what else list(PARTS)
    return arguments


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _say(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.json:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
