"""How long the program is stopped for a patch: nine threads, eight of them busy, and 1, 10 or 100 functions to change.

The program runs in the background of a debugger in a terminal; each round edits the functions, types `hotpatch
--json`, and takes the times from the answer. `stopped` is from the request to just before the program is resumed,
`work` is our share of it: the rest is the kernel's and the debugger's, who stop nine threads, and on a busy machine
mostly waiting for a processor (the busy threads have a lower priority than the debugger, so that it does not wait for
them). Beside each figure stands how many times that is what a hand-made prototype of the same steps took in the same
debugger. The prototype ran on another day: how many times longer than then the part of the stop takes that is not ours
(`slower`) hints at how much of that is the machine's doing; it is no part of the verdict. The first patch of a session
also maps the memory that the later ones use; it is shown apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from demo import OPTIONS, QUIET, START, end_programs_of
from terminal import Terminal

from ipbp.cli.outcome import Outcome, find_outcome

FUNCTIONS = 100
PROTOTYPE = {"gdb": {1: 1.2, 10: 1.9, 100: 1.4}, "lldb": {1: 2.9, 10: 1.9, 100: 3.4}}
"""Milliseconds from the request to just before resuming, 9 threads, writes through /proc/PID/mem."""
BARE_STOP = {"gdb": 0.75, "lldb": 2.0}
"""Of which the stop alone, before anything is looked at."""
ALLOWED = 2.0
"""The stop may take this many times the prototype's."""

MAIN = """\
#include <pthread.h>
#include <unistd.h>
extern int (*const functions[])(int);
static volatile int sink[8];
static void *work(void *number)
{
    nice(10);
    for (int x = 0;; x++) sink[(long)number] += functions[x % COUNT](x);
    return NULL;
}
int main(void)
{
    pthread_t threads[8];
    for (long i = 0; i < 8; i++) pthread_create(&threads[i], NULL, work, (void *)i);
    for (;;) pause();
}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds; `ratio` is of the median to the prototype's, `slower` of the median of what is not our work to the
    prototype's. `work` and the stages are medians. `functions` is 0 for the first patch of the session."""

    debugger: str
    functions: int
    least: float
    median: float
    most: float
    ratio: float
    slower: float
    work: float
    compile: float
    diff: float
    link: float


def measure(debugger: str, rounds: int) -> Iterator[Row]:
    """A row for the first patch and one for each number of functions, all in one session."""
    with tempfile.TemporaryDirectory(prefix="ipbp-bench-") as name:
        folder = Path(name)
        build(folder)
        command = [sys.executable, "-m", "ipbp.cli.main", debugger, *OPTIONS[debugger], "--", "./bench"]
        try:
            with Terminal(command, folder) as terminal:
                for line in ("", *QUIET[debugger], START[debugger]):
                    terminal.type(line)
                    terminal.wait_for_text(rf"^\({debugger}\)")
                terminal.wait_for(lambda: is_running(folder), "the program's start")
                generation = 1
                write_functions(folder, 1, generation)
                yield row(debugger, 0, [hotpatch(terminal)])
                for functions in PROTOTYPE[debugger]:
                    outcomes = []
                    for _ in range(rounds):
                        generation += 1
                        write_functions(folder, functions, generation)
                        outcomes.append(hotpatch(terminal))
                    yield row(debugger, functions, outcomes)
                terminal.type("kill" if debugger == "gdb" else "process kill")
                terminal.type("quit")
                terminal.wait_for_end()
        finally:
            end_programs_of(folder)


def build(folder: Path) -> None:
    (folder / "main.c").write_text(MAIN)
    write_functions(folder, 0, 0)
    commands = []
    for source in ("main.c", "functions.c"):
        words = ["gcc", "-g", "-O2", f"-DCOUNT={FUNCTIONS}", "-c", source, "-o", source.replace(".c", ".o")]
        subprocess.run(words, cwd=folder, check=True)
        commands.append({"directory": str(folder), "file": source, "arguments": words})
    (folder / "compile_commands.json").write_text(json.dumps(commands))
    subprocess.run(["gcc", "main.o", "functions.o", "-o", "bench", "-pthread"], cwd=folder, check=True)


def write_functions(folder: Path, changed: int, generation: int) -> None:
    """All functions; the first `changed` of them as they are in this generation."""
    bodies = [
        f"__attribute__((noinline)) int f{n}(int x) {{ return x * {n + 3} + {generation * 7 if n < changed else 1}; }}"
        for n in range(FUNCTIONS)
    ]
    table = ", ".join(f"f{n}" for n in range(FUNCTIONS))
    text = "\n".join([*bodies, f"int (*const functions[])(int) = {{{table}}};"])
    (folder / "functions.c").write_text(text + "\n")


def is_running(folder: Path) -> bool:
    """The program and its eight threads."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "exe").readlink() == folder / "bench":
                return len(list((process / "task").iterdir())) == 9
        except OSError:  # not ours to look at, or gone meanwhile
            continue
    return False


def hotpatch(terminal: Terminal) -> Outcome:
    terminal.type("hotpatch --json")
    terminal.wait_for(lambda: find_outcome(terminal.said) is not None, "an answer")
    outcome = find_outcome(terminal.said)
    if outcome is None or outcome["outcome"] != "patched":
        raise SystemExit(f"hotpatch did not patch: {outcome}")
    return outcome


def row(debugger: str, functions: int, outcomes: list[Outcome]) -> Row:
    def times(name: str) -> list[float]:
        return [outcome["times"][name] for outcome in outcomes]

    stops = times("stopped")
    prototype = PROTOTYPE[debugger].get(functions)
    bare = median(stop - work for stop, work in zip(stops, times("work"), strict=True))
    ratio = median(stops) / prototype if prototype else 0.0
    shares = (median(times(name)) for name in ("work", "compile", "diff", "link"))
    return Row(debugger, functions, min(stops), median(stops), max(stops), ratio, bare / BARE_STOP[debugger], *shares)


HEAD = """\
             stopped, ms                                median, ms
functions    min  median     max  x prototype  slower      work  compile    diff    link"""


def line(row: Row) -> str:
    which = f"{row.functions:4}" if row.functions else "first"
    ratio = f"{row.ratio:10.2f}  {row.slower:6.2f}" if row.functions else " " * 18
    stop = f"{row.least:7.2f} {row.median:7.2f} {row.most:7.2f}   {ratio}"
    stages = f"{row.work:7.2f}  {row.compile:7.1f} {row.diff:7.1f} {row.link:7.1f}"
    return f"{row.debugger:4}{which:>5} {stop}   {stages}"
