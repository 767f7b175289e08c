"""How the stop and the way to it grow: with the functions that an edit changes, the threads and the executable.

Beside each stop stands that of a bare ptrace program (`bare_patch.c`) on another process of the same program, a moment
later: what the kernel takes to stop that many threads and to write that many entries. The threads do some work a
hundred times a second, as those of a server that is not very busy.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import bench_witness
from bench_bulk import add_bulk
from bench_inputs import make_part, source_of
from bench_programs import SMALL_UNIT, Units
from bench_warm import warm
from bench_witness import wait_until
from spread import Spread, spread

USUAL_FUNCTIONS, USUAL_THREADS = 100, 16
STOP_TARGET = {"gdb": 3.0, "lldb": 5.0}
"""Milliseconds that are aimed at for so many functions and threads on an idle machine."""
MEMORY_TARGET = 400.0
"""Megabytes of the engine that are aimed at for the largest executable."""

FARM = (
    bench_witness.C
    + """\
#include <pthread.h>
long value(void);
int f1(int);
static void *work(void *unused)
{
    for (volatile int sum = 0;;) {
        sum += f1(sum);
        struct timespec t = { 0, 10000000 };
        nanosleep(&t, 0);
    }
    return unused;
}
int main(void)
{
    pthread_t thread;
    for (int i = 1; i < THREADS; i++) pthread_create(&thread, 0, work, 0);
    witness(value);
}
"""
)


class Farm(Units):
    """`threads` threads, a unit of 1,000 functions. `changed`: how many of them an edit changes, `value` included."""

    name = "farm"
    unit = "unit.c"

    def __init__(self, folder: Path, threads: int, changed: int) -> None:
        super().__init__(folder)
        self.threads, self.changed = threads, changed

    def texts(self, generation: int) -> dict[str, str]:
        bodies = [
            f"__attribute__((noinline)) int f{n}(int x) {{ return x * {n + 3} + {added}; }}"
            for n in range(1, 1000)
            for added in [generation if n < self.changed else 1]
        ]
        value = f"long value(void) {{ return {generation}; }}\n"
        return {"main.c": FARM.replace("THREADS", str(self.threads)), "unit.c": value + "\n".join(bodies) + "\n"}

    def start(self) -> subprocess.Popen[bytes]:
        process = super().start()
        tasks = Path(f"/proc/{process.pid}/task")
        wait_until(lambda: len(list(tasks.iterdir())) == self.threads, "the start of all threads")
        return process


class Large(Units):
    """A small program in an executable of so many megabytes."""

    name = "large"
    unit = "unit.c"

    def __init__(self, folder: Path, bulk: Sequence[Path]) -> None:
        super().__init__(folder)
        self.bulk = bulk

    def texts(self, generation: int) -> dict[str, str]:
        main = f"{bench_witness.C}long value(void);\nint main(void) {{ witness(value); }}\n"
        return {"main.c": main, "unit.c": SMALL_UNIT % (source_of(12, 0), generation)}

    def link(self, linker: str) -> None:
        words = ["gcc", "-fuse-ld=mold", *self.objects, *map(str, self.bulk), "-o", self.program]
        subprocess.run([*words, "-Wl,--build-id"], cwd=self.folder, check=True)


@dataclass(frozen=True, slots=True)
class Row:
    """`count` of `what` ("functions", "threads", "executable": megabytes) was measured in `debugger`. Milliseconds:
    `stopped`, `floor` the stop of the bare ptrace program, `beyond` the way from the edit to the new code without the
    compiler; of executables also the first patch of a session with nothing kept (`cold`) and with the kept index
    (`kept`). `engine`: megabytes. `stop_target` and `memory_target`: what is aimed at, or 0."""

    what: str
    count: float
    debugger: str
    stopped: Spread
    floor: Spread | None
    beyond: Spread
    cold: float
    kept: float
    engine: float
    stop_target: float = 0.0
    memory_target: float = 0.0


def functions(debuggers: Sequence[str], rounds: int, counts: Sequence[int]) -> Iterator[Row]:
    for count in counts:
        yield from _farm("functions", count, debuggers, USUAL_THREADS, count, rounds)


def threads(debuggers: Sequence[str], rounds: int, counts: Sequence[int]) -> Iterator[Row]:
    for count in counts:
        yield from _farm("threads", count, debuggers, count, USUAL_FUNCTIONS, rounds)


def executables(debuggers: Sequence[str], rounds: int, sizes: Sequence[int]) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="ipbp-bench-") as name:
        part = make_part(Path(name), 500)
        for size in sizes:
            folder = Path(name, str(size))
            folder.mkdir()
            program = Large(folder, add_bulk(part, size, Path(name)))
            program.build()
            megabytes = (folder / program.program).stat().st_size / 1e6
            for debugger in debuggers:
                cold = _sessions(program, debugger, 0)
                kept = _sessions(program, debugger, rounds)
                target = MEMORY_TARGET if size >= 1000 else 0.0
                engine = max(cold.engine, kept.engine)
                yield Row(
                    "executable",
                    megabytes,
                    debugger,
                    spread(kept.stopped),
                    None,
                    spread(kept.beyond),
                    cold.first,
                    kept.first,
                    engine,
                    0.0,
                    target,
                )
            (folder / program.program).unlink()


def _farm(what: str, count: int, debuggers: Sequence[str], threads: int, changed: int, rounds: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="ipbp-bench-") as name:
        program = Farm(Path(name), threads, changed)
        program.build()
        for debugger in debuggers:
            found = _sessions(program, debugger, rounds)
            with program.running() as process:
                floor = _floor(program, process.pid, changed, rounds)
            usual = (threads, changed) == (USUAL_THREADS, USUAL_FUNCTIONS)
            target = STOP_TARGET[debugger] if usual else 0.0
            yield Row(
                what,
                count,
                debugger,
                spread(found.stopped),
                spread(floor),
                spread(found.beyond),
                found.first,
                0.0,
                found.engine,
                target,
            )


@dataclass
class _Session:
    first: float
    beyond: list[float]
    stopped: list[float]
    engine: float


def _sessions(program: Units, debugger: str, rounds: int) -> _Session:
    """A session's first patch, then `rounds` more."""
    found = _Session(0.0, [], [], 0.0)
    with program.running() as process, warm(debugger, process.pid, program.folder) as session:
        for generation in range(1, rounds + 2):
            program.edit(generation)
            began = time.perf_counter()
            outcome = session.hotpatch()
            program.wait_for(generation)
            beyond = 1000 * (program.since() - began) - outcome["times"]["compiler"]
            if generation == 1:
                found.first = beyond
            else:
                found.beyond.append(beyond)
                found.stopped.append(outcome["times"]["stopped"])
        found.engine = session.engine_megabytes()
    return found


def _floor(program: Units, pid: int, functions: int, rounds: int) -> list[float]:
    tool = program.folder / "bare_patch"
    if not tool.exists():
        subprocess.run(["gcc", "-O2", Path(__file__).with_name("bare_patch.c"), "-o", tool], check=True)
    words = [str(tool), str(pid), hex(program.address_of(pid, "value")), str(functions), str(rounds + 1)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [float(word) for word in said.split()][1:]


PARTS = {
    "functions": (functions, (1, 10, 100, 1000)),
    "threads": (threads, (1, 16, 128)),
    "executables": (executables, (1, 100, 1000)),
}
"""Each with its usual counts; of executables megabytes."""
HEAD = """\
                          stopped, ms           bare ptrace, ms   times beyond the compiler, ms    first, ms      engine
                       min  median     max    median     max the bare     min  median     max    cold    kept     MB"""


def line(row: Row) -> str:
    text = f"{row.debugger:5}{row.count:5.0f} {'MB' if row.what == 'executable' else row.what:9}{_three(row.stopped)}"
    floor = row.floor
    text += f" {floor.median:8.2f} {floor.most:7.2f} {row.stopped.median / floor.median:8.1f}" if floor else " " * 25
    kept = f"{row.kept:7.0f}" if row.kept else " " * 7
    return f"{text}{_three(row.beyond)} {row.cold:7.0f} {kept} {row.engine:6.0f}"


def _three(found: Spread) -> str:
    return f" {found.least:7.2f} {found.median:7.2f} {found.most:7.2f}"
