"""From a saved edit until the program runs the new code, in a debugger that is warm, beside what a user does instead.

Time begins when the source is written and the command is given, and ends when the program itself has run the new
function. `compiler` is the time in which the user's compiler ran; `beyond` is the rest. `stopped` is what the debugger
side says of the stop, from the request to just before the program is resumed, and `gap` is the longest time that the
program did not get to its loop, whoever kept it from that; it has the program's own pause of some 0.15 ms in it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bench_instead
from bench_cargo import RustCrate, RustWorkspace
from bench_programs import LINKERS, Program, Redis, SmallC, Templates, Units
from bench_warm import warm
from spread import Spread, spread

CASES: dict[str, Callable[[Path, int], Program]] = {
    "small": lambda folder, lines: SmallC(folder),
    "redis": lambda folder, lines: Redis(folder),
    "templates": lambda folder, lines: Templates(folder),
    "crate": RustCrate,
    "workspace": RustWorkspace,
}


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds. `way`: "ipbp in gdb", "rebuild with mold, restart", ... `live`: from the edit to the new code at
    work, None where the way does not work here; `compiler` of it the compiler's, 0 where that is not known apart;
    `beyond`: the rest. `stopped` and `gap` None where it is not told. `engine`: megabytes. `keeps_state`: of the
    program. `target`: of `beyond`, or 0. `parts`: medians of what `beyond` consists of, for ipbp."""

    case: str
    way: str
    live: Spread | None
    compiler: float
    beyond: Spread | None
    stopped: Spread | None
    gap: Spread | None
    engine: float
    keeps_state: bool
    target: float
    note: str = ""
    parts: dict[str, float] = field(default_factory=dict)


def measure(cases: Sequence[str], debuggers: Sequence[str], rounds: int, lines: int) -> Iterator[Row]:
    """The rows of each case, ipbp first."""
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="ipbp-bench-") as name:
            program = CASES[case](Path(name), lines)
            program.build()
            compilers = []
            for debugger in debuggers:
                row = in_debugger(program, debugger, rounds)
                compilers.append(row.compiler)
                yield row
            yield from _instead(program, debuggers, rounds, min(compilers, default=0.0))


def in_debugger(program: Program, debugger: str, rounds: int) -> Row:
    """Patches in one session; the first, which also starts the engine and maps memory, is not counted."""
    live, beyond, stopped, gaps, compilers, parts = [], [], [], [], [], []
    with program.running() as process, warm(debugger, process.pid, program.folder) as session:
        for generation in range(1, rounds + 2):
            program.edit(generation)
            program.forget_gap()
            began = time.perf_counter()
            outcome = session.hotpatch()
            program.wait_for(generation)
            if generation == 1:
                continue
            times = outcome["times"]
            live.append(1000 * (program.since() - began))
            compilers.append(times["compiler"])
            beyond.append(live[-1] - times["compiler"])
            stopped.append(times["stopped"])
            parts.append(_parts(times, beyond[-1]))
            gaps += [gap for gap in [program.gap_ms()] if gap is not None]
        engine = session.engine_megabytes()
    return Row(
        program.name,
        f"ipbp in {debugger}",
        spread(live),
        spread(compilers).median,
        spread(beyond),
        spread(stopped),
        spread(gaps) if gaps else None,
        engine,
        True,
        program.beyond,
        parts={name: spread([row[name] for row in parts]).median for name in parts[0]},
    )


def _parts(times: Mapping[str, float], beyond: float) -> dict[str, float]:
    """What a patch took beside the compiler: the engine's steps, the stop, and the rest: the debugger before and after,
    and the way between the two."""
    found = {
        "process": times["index"],
        "around the compiler": times["compile"] - times["compiler"],
        "compare": times["diff"],
        "link": times["link"],
        "stop, ours": times["work"],
        "stop, the debugger's": times["stopped"] - times["work"],
    }
    return {**found, "rest": beyond - sum(found.values())}


def _instead(program: Program, debuggers: Sequence[str], rounds: int, compiler: float) -> Iterator[Row]:
    for linker, (live, compilers) in bench_instead.restarts(program, LINKERS, rounds).items():
        # What cargo spends in the compiler of the edited crate is what it took for the same edit above.
        spent = [took or compiler for took in compilers]
        beyond = spread([whole - took for whole, took in zip(live, spent, strict=True)])
        way = f"{'cargo build' if isinstance(program, RustCrate) else 'compile, link'} with {linker}, restart"
        yield Row(program.name, way, spread(live), spread(spent).median, beyond, None, None, 0.0, False, 0.0)
    if isinstance(program, Units):
        for found in bench_instead.in_place(program, debuggers, rounds):
            if not found.live:
                yield Row(program.name, found.way, None, 0.0, None, None, None, 0.0, True, 0.0, found.note)
                continue
            took = spread(found.compilers).median if found.compilers else 0.0
            compilers = found.compilers or [0.0] * len(found.live)
            beyond = spread([whole - took for whole, took in zip(found.live, compilers, strict=True)])
            yield Row(
                program.name,
                found.way,
                spread(found.live),
                took,
                beyond,
                None,
                spread(found.gaps),
                0.0,
                True,
                0.0,
                found.note,
            )


HEAD = """\
                                  live, ms           beyond the compiler, ms     stopped, ms       gap, ms  engine state
way                                  median compiler     min  median     max target   min median    max median   max"""


def line(row: Row) -> str:
    target = f"{row.target:6.0f}" if row.target else " " * 6
    if row.live is None or row.beyond is None:
        return f"{row.way:34}{'-':>8}  {row.case}; {row.note}"
    text = f"{row.way:34}{row.live.median:8.1f} {row.compiler:8.1f}{_three(row.beyond, 7)} {target}"
    text += _three(row.stopped, 6) if row.stopped else " " * 21
    text += f" {row.gap.median:6.1f} {row.gap.most:5.1f}" if row.gap else " " * 13
    engine = f"{row.engine:4.0f}" if row.engine else " " * 4
    return f"{text} {engine} {'yes' if row.keeps_state else 'no':3}  {row.case}{f'; {row.note}' if row.note else ''}"


def _three(found: Spread, width: int) -> str:
    return "".join(f" {number:{width}.1f}" for number in (found.least, found.median, found.most))
