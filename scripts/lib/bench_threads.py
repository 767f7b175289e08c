"""What a thread-local variable costs that a patch brings, beside one that the program began with.

A program with many threads is patched through gdb: with ordinary edits, the first of which maps the memory for all,
and with one that brings a variable. The same loop is timed with the old variable and with the new one, the first use
of the new one in each thread by itself, and what the kernel says of the program's memory is taken before and after.
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

from ipbp.cli.outcome import Outcome, find_outcome

THREADS = 200
LOOPS = 20_000_000
MAIN = """\
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
long loop(long n);
static pthread_barrier_t go, done;
static long first[THREADS];
static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}
static void *work(void *number) {
    for (;;) {
        pthread_barrier_wait(&go);
        long start = now();
        loop(1);
        first[(long)number] = now() - start;
        pthread_barrier_wait(&done);
    }
}
int main(void) {
    char word[20];
    pthread_t thread;
    pthread_barrier_init(&go, 0, THREADS + 1);
    pthread_barrier_init(&done, 0, THREADS + 1);
    for (long i = 0; i < THREADS; i++) pthread_create(&thread, 0, work, (void *)i);
    while (scanf("%19s", word) == 1) {
        if (strcmp(word, "loop") == 0) {
            long start = now();
            loop(LOOPS);
            printf("%ld", now() - start);
        } else {
            pthread_barrier_wait(&go);
            pthread_barrier_wait(&done);
            for (int i = 0; i < THREADS; i++) printf("%ld ", first[i]);
        }
        puts("");
        fflush(stdout);
    }
}
"""
UNIT = """\
static __thread long old_one;
%s
long loop(long n) {
    for (long i = 0; i < n; i++) { %s += i; __asm__ volatile("" ::: "memory"); }
    return old_one + %d;
}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """Of one program, `before` and `after` it got the variable: `access` nanoseconds in a loop, `first` the median of
    the threads' first use, or of a later one; `stopped` milliseconds for a patch without and with one; memory in
    KiB."""

    model: str
    access: tuple[float, float]
    first: tuple[float, float]
    stopped: tuple[float, float]
    resident: tuple[int, int]
    mapped: tuple[int, int]


def measure(rounds: int) -> Iterator[Row]:
    """A row for code of a program, and one for position-independent code, which asks `__tls_get_addr` in libraries."""
    for model, flags in (("program", ["-O2"]), ("-fPIC", ["-O2", "-fPIC"])):
        with tempfile.TemporaryDirectory(prefix="ipbp-bench-") as name:
            yield _row(model, flags, Path(name), rounds)


def _row(model: str, flags: list[str], folder: Path, rounds: int) -> Row:
    _build(folder, flags)
    with subprocess.Popen([folder / "bench"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        try:

            def ask(word: str) -> list[int]:
                assert program.stdin is not None
                assert program.stdout is not None
                program.stdin.write(word + "\n")
                program.stdin.flush()
                return [int(number) for number in program.stdout.readline().split()]

            ask("all")
            for edit in (1, 2):
                (folder / "unit.c").write_text(UNIT % ("", "old_one", edit))
                plain = _patch(program.pid)
            access, first = min(ask("loop")[0] for _ in range(rounds)), median(ask("all"))
            before = _memory(program.pid)
            (folder / "unit.c").write_text(UNIT % ("static __thread long new_one = 5;", "new_one", 3))
            brings = _patch(program.pid)
            after = _memory(program.pid)
            return Row(
                model,
                (access / LOOPS, min(ask("loop")[0] for _ in range(rounds)) / LOOPS),
                (first, median(ask("all"))),
                (plain["times"]["work"], brings["times"]["work"]),
                (before["VmRSS"], after["VmRSS"]),
                (before["VmSize"], after["VmSize"]),
            )
        finally:
            program.kill()


def _build(folder: Path, flags: list[str]) -> None:
    (folder / "main.c").write_text(MAIN)
    (folder / "unit.c").write_text(UNIT % ("", "old_one", 0))
    commands = []
    for source in ("main.c", "unit.c"):
        counts = [f"-DTHREADS={THREADS}", f"-DLOOPS={LOOPS}L"]
        words = ["gcc", "-g", *flags, *counts, "-c", source, "-o", source.replace(".c", ".o")]
        subprocess.run(words, cwd=folder, check=True)
        commands.append({"directory": str(folder), "file": source, "arguments": words})
    (folder / "compile_commands.json").write_text(json.dumps(commands))
    subprocess.run(["gcc", "main.o", "unit.o", "-o", "bench", "-pthread"], cwd=folder, check=True)


def _patch(pid: int) -> Outcome:
    words = [sys.executable, "-m", "ipbp.cli.main", "apply", "--pid", str(pid), "--debugger", "gdb", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    outcome = find_outcome(done.stdout)
    if outcome is None or outcome["outcome"] != "patched":
        raise SystemExit(f"ipbp apply did not patch: {done.stdout}{done.stderr}")
    return outcome


def _memory(pid: int) -> dict[str, int]:
    rows = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if row[0] in ("VmRSS:", "VmSize:")}


HEAD = f"""\
a new thread-local variable, {THREADS} threads          old or before -> new or after
            ns an access   ns the first      ms of our work      resident KiB        mapped KiB"""


def line(row: Row) -> str:
    return (
        f"{row.model:11} {row.access[0]:5.2f} -> {row.access[1]:5.2f}  {row.first[0]:5.0f} -> {row.first[1]:5.0f}  "
        f"{row.stopped[0]:6.1f} -> {row.stopped[1]:6.1f}  {row.resident[0]:7} -> {row.resident[1]:7} "
        f"{row.mapped[0]:8} -> {row.mapped[1]:8}"
    )
