"""Every figure that the project claims, measured on this machine; see the files beside this one for what is done.

`diff`: comparing two objects. `index`: knowing the symbols of an executable. `stop`: how long a patch stops the
program. `symbols`: telling the debugger of a patch. `rust`: from an edit of a crate to a plan, without rustc's own
time. `threads`: what a new thread-local variable costs. `types`: knowing and comparing the layouts of a unit's types.
Figures of a busy machine say little by themselves, so each is shown beside something that is not ours, where there is
such a thing: the sha256 of the same bytes, the compiler, a prototype in the same debugger.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import bench_diff
import bench_index
import bench_rust
import bench_stop
import bench_symbols
import bench_threads
import bench_types
import measured

PARTS = ("diff", "index", "stop", "symbols", "rust", "threads", "types")
DEBUGGERS = ("gdb", "lldb")


def main() -> int:
    arguments = _arguments()
    everything: dict[str, object] = {}
    in_time = True
    for part in [part for part in PARTS if part in arguments.what] or PARTS:
        if part == "stop":
            found = list(_stops(arguments))
            in_time = all(row.ratio <= bench_stop.ALLOWED for row in found)
            everything[part] = {"rows": [asdict(row) for row in found], "allowed": bench_stop.ALLOWED}
        elif part == "symbols":
            everything[part] = {"rows": [asdict(row) for row in _symbols(arguments)]}
        elif part == "rust":
            everything[part] = {"rows": [asdict(row) for row in _rust(arguments)]}
        elif part == "threads":
            everything[part] = {"rows": [asdict(row) for row in _threads(arguments)]}
        elif part == "types":
            everything[part] = {"rows": [asdict(row) for row in _types(arguments)]}
        else:
            everything[part] = {"rows": [asdict(row) for row in _sizes(part, arguments)]}
    if arguments.json:
        print(json.dumps(everything))
    return 0 if in_time else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure ipbp on this machine; status 1 when a stop is too long.")
    parser.add_argument("what", nargs="*", metavar="|".join((*PARTS, *DEBUGGERS)), help="parts, debuggers (all)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements, or patches, for each figure (7)")
    parser.add_argument("--sizes", help="megabytes for diff and index, smallest first, with commas between them")
    parser.add_argument("--functions", type=int, default=200, help="in the source that objects are made of (200)")
    parser.add_argument("--lines", type=int, default=50_000, help="of the large crate of rust (50000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    unknown = set(arguments.what) - {*PARTS, *DEBUGGERS}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if arguments.what and not set(arguments.what) & set(PARTS):
        arguments.what.append("stop")  # a debugger alone
    return arguments


def _sizes(part: str, arguments: argparse.Namespace) -> Iterator[measured.Row]:
    module = bench_diff if part == "diff" else bench_index
    sizes = tuple(map(float, arguments.sizes.split(","))) if arguments.sizes else module.SIZES
    _say(arguments, measured.HEAD)
    with tempfile.TemporaryDirectory(prefix="ipbp-bench-") as name:
        for row in module.measure(Path(name), sizes, arguments.rounds, arguments.functions):
            _say(arguments, measured.line(row))
            yield row


def _rust(arguments: argparse.Namespace) -> Iterator[bench_rust.Row]:
    _say(arguments, bench_rust.HEAD)
    with tempfile.TemporaryDirectory(prefix="ipbp-bench-") as name, bench_rust.own_cache(Path(name)):
        for row in bench_rust.rows(Path(name), arguments.rounds, arguments.lines):
            _say(arguments, bench_rust.line(row))
            yield row


def _stops(arguments: argparse.Namespace) -> Iterator[bench_stop.Row]:
    _say(arguments, bench_stop.HEAD)
    for debugger in [name for name in DEBUGGERS if name in arguments.what] or DEBUGGERS:
        for row in bench_stop.measure(debugger, arguments.rounds):
            _say(arguments, bench_stop.line(row))
            yield row


def _types(arguments: argparse.Namespace) -> Iterator[bench_types.Row]:
    _say(arguments, bench_types.HEAD)
    with tempfile.TemporaryDirectory(prefix="ipbp-bench-") as name:
        for row in bench_types.measure(Path(name), arguments.rounds):
            _say(arguments, bench_types.line(row))
            yield row


def _symbols(arguments: argparse.Namespace) -> Iterator[bench_symbols.Row]:
    _say(arguments, bench_symbols.HEAD)
    debuggers = [name for name in DEBUGGERS if name in arguments.what] or DEBUGGERS
    sizes = tuple(map(float, arguments.sizes.split(","))) if arguments.sizes else bench_symbols.SIZES
    for row in bench_symbols.measure(debuggers, sizes, arguments.rounds):
        _say(arguments, bench_symbols.line(row))
        yield row


def _threads(arguments: argparse.Namespace) -> Iterator[bench_threads.Row]:
    _say(arguments, bench_threads.HEAD)
    for row in bench_threads.measure(arguments.rounds):
        _say(arguments, bench_threads.line(row))
        yield row


def _say(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.json:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
