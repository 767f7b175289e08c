"""Thousands of patches and undoes of one program: no call may be lost, and nobody's memory may grow.

Sixteen threads call the patched function all the time and add up what comes back, so that a call that is lost, or an
answer that is neither the old nor the new one, shows. The resident memory of the program, the debugger (with lldb's
server) and the engine is read every few cycles; its slope is that of a straight line through the later half.

`--alone` does the same without ipbp: the debugger stops the program twice in each cycle, as often as a patch and its
undo do, and lets it go. What it keeps then is its own doing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from reliability import write_section
from scenario import PROGRAMS, Project, Talk
from sessions import Session, debug_with
from test_hammer import counters

from ipbp.cli.debuggers import find_debugger

THREADS = 16
_SOURCE = (
    ("#define THREADS 8", f"#include <unistd.h>\n#define THREADS {THREADS}"),
    ("        if (atomic_load(&pause_asked)) {", "        usleep(2000);\n        if (atomic_load(&pause_asked)) {"),
)
_SAMPLES = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """After `cycle` cycles: KiB resident, bytes of the journal, milliseconds that a cycle took since the last one."""

    cycle: int
    program: int
    debugger: int
    engine: int
    journal: int
    milliseconds: float


def soak(debugger: str, count: int, alone: bool = False) -> Iterator[Sample]:
    """Raises AssertionError for a lost call or a patch that was not applied."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
            os.environ[variable] = str(folder / variable)
        project, words = _build(folder)
        program = Talk(project.program)
        try:
            with debug_with(debugger, find_debugger(debugger)) as session:
                session.attach(program.process.pid)
                session.resume()
                cycle = partial(_stop_twice, session) if alone else partial(_patch_and_undo, session, words)
                yield from _cycles(session, program, cycle, count, folder)
                session.stop()
                session.detach()
            assert program.close() == 0
        finally:
            program.kill()


def _build(folder: Path) -> tuple[Project, str]:
    text = (PROGRAMS / "hammer.c").read_text()
    for old, new in _SOURCE:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    for name, source in (("old", text), ("new", text.replace("return x + 1;", "return x + 1000;"))):
        (folder / f"{name}.c").write_text(source)
        subprocess.run(["gcc", "-O0", "-g", "-c", f"{name}.c", "-o", f"{name}.o"], cwd=folder, check=True)
    subprocess.run(["gcc", "old.o", "-o", "soak", "-pthread"], cwd=folder, check=True)
    return Project(folder, folder / "soak"), f"object {folder}/old.o {folder}/new.o"


def _patch_and_undo(session: Session, words: str, cycle: int) -> None:
    outcome = session.call(words)
    assert outcome["outcome"] == "patched", (cycle, outcome)
    outcome = session.call("undo")
    assert outcome["outcome"] == "undone", (cycle, outcome)


def _stop_twice(session: Session, cycle: int) -> None:
    for _ in range(2):
        session.stop()
        session.resume()


def _cycles(session: Session, program: Talk, act: Callable[[int], None], count: int, folder: Path) -> Iterator[Sample]:
    every = min(max(1, count // _SAMPLES), 20)
    began = time.perf_counter()
    calls = 0
    for cycle in range(1, count + 1):
        act(cycle)
        if cycle % every and cycle != count:
            continue
        passed = 1000 * (time.perf_counter() - began) / (every if cycle % every == 0 else cycle % every)
        server, engine = _children(session)
        found = counters(program.ask("?"))
        assert found[0] > calls, "the program does nothing"
        assert found[2] or cycle < 10 or not engine, "the new code never ran"
        calls = found[0]
        journal = sum(path.stat().st_size for path in folder.glob("XDG_STATE_HOME/ipbp/*/journal"))
        yield Sample(
            cycle, _resident(program.process.pid), _resident(*server), _resident(*engine), journal, round(passed, 1)
        )
        began = time.perf_counter()


def _children(session: Session) -> tuple[list[int], list[int]]:
    """The debugger with its server, and its engine."""
    own = session.process_id
    others: list[int] = [own]
    engine: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == own:
            (engine if b"ipbp.engine" in line else others).append(int(folder.name))
    return others, engine


def _resident(*pids: int) -> int:
    return sum(int(_field(pid, "VmRSS").split()[0]) for pid in pids)


def _field(pid: int, name: str) -> str:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((row.partition(":")[2] for row in rows if row.startswith(name)), "0")


def slope(samples: Sequence[Sample], name: str) -> float:
    """KiB for each thousand cycles: least squares over the later half."""
    half = samples[len(samples) // 2 :]
    xs, ys = [row.cycle for row in half], [getattr(row, name) for row in half]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((a - x) ** 2 for a in xs)
    return 1000 * sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread if spread else 0.0


def _table(runs: Sequence[tuple[str, Sequence[Sample]]]) -> list[str]:
    lines = [
        "| debugger | cycles | | KiB at first | KiB at last | KiB for 1000 cycles | ms for a cycle, early and late |",
        "|---|---|---|---|---|---|---|",
    ]
    for debugger, samples in runs:
        tenth = max(1, len(samples) // 10)
        early, late = (median(row.milliseconds for row in part) for part in (samples[:tenth], samples[-tenth:]))
        names = ("program", "debugger", "engine") if samples[-1].engine else ("program", "debugger")
        for number, name in enumerate(names):
            head = f"| {debugger} | {samples[-1].cycle} |" if not number else "| | |"
            first, last = getattr(samples[0], name), getattr(samples[-1], name)
            times = f"{early:.0f}, {late:.0f}" if not number else ""
            lines.append(f"{head} {name} | {first} | {last} | {slope(samples, name):+.0f} | {times} |")
    return lines


def _section(runs: Sequence[tuple[str, Sequence[Sample]]]) -> list[str]:
    versions = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return [
        "## Soak",
        "",
        f"One program with {THREADS} threads that call the patched function all the time, patched and put back",
        "over and over in one session. No call was lost, and every answer was the old or the new one.",
        "Memory is resident; the slope is that of a line through the later half. A debugger alone stops the program",
        "and lets it go twice a cycle, as often as a patch and its undo do: what it keeps then it keeps without ipbp.",
        "",
        *_table(runs),
        "",
        f"{versions}; `scripts/soak --count N --debugger gdb --log FILE`, then `scripts/soak --report FILE...`.",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--debugger", choices=("gdb", "lldb"), default="gdb")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--report", type=Path, nargs="+", metavar="LOG")
    arguments = parser.parse_args()
    if arguments.report:
        write_section("soak", _section([_read(path) for path in arguments.report]))
        return 0
    samples = []
    who = arguments.debugger + " alone" * arguments.alone
    for sample in soak(arguments.debugger, arguments.count, arguments.alone):
        samples.append(sample)
        print(json.dumps(asdict(sample)), flush=True)
        if arguments.log:
            rows = [asdict(row) for row in samples]
            arguments.log.write_text(json.dumps({"debugger": who, "samples": rows}))
    print("\n".join(_table([(who, samples)])))
    return 0


def _read(path: Path) -> tuple[str, list[Sample]]:
    run = json.loads(path.read_text())
    return run["debugger"], [Sample(**row) for row in run["samples"]]


if __name__ == "__main__":
    sys.exit(main())
