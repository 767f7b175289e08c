"""What it costs to tell the debugger of a patch's symbols, by the size of its debug information.

A file like a patch, linked at addresses of its own, with types of which nobody needs any, is announced to a debugger
that is attached to a program which runs: alone, and with a breakpoint on its function, which makes the debugger read
all that is said of it. `blocked` is the time of `Inferior.exchange`, in which the debugger does not answer; `stopped`
how much longer than it sleeps the program has not run meanwhile, as it has itself found.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ipbp.cli.debuggers import find_debugger
from ipbp.cli.path import load_line

SIZES = (1.0, 20.0)
TYPES_PER_MB = 11000
HEAD = "symbols                  MB    blocked ms     least ms  stopped ms"
_PROGRAM = """\
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
int edited(int x) { return x + 1; }
int main(int count, char **words) {
    double *longest = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, open(words[1], O_RDWR), 0);
    struct timespec before, now;
    clock_gettime(CLOCK_MONOTONIC, &before);
    while (count == 2) {
        usleep(1000);
        clock_gettime(CLOCK_MONOTONIC, &now);
        double passed = (now.tv_sec - before.tv_sec) * 1e3 + (now.tv_nsec - before.tv_nsec) / 1e6 - 1;
        if (passed > *longest)
            *longest = passed;
        before = now;
    }
    return edited(1);
}
"""
_TYPE = "struct s{n} {{ int a{n}; struct s{n} *next{n}; double values{n}[{size}]; }};\n"
_TIMED = (
    "import struct, time; gap = open({gap!r}, 'r+b', 0); time.sleep(0.1); gap.write(bytes(8)); "
    "begin = time.perf_counter(); {act}; took = time.perf_counter() - begin; time.sleep(0.05); gap.seek(0); "
    "print('took', 1000 * took, struct.unpack('d', gap.read(8))[0])"
)
_RUN = {"gdb": ["continue &"], "lldb": ["script lldb.debugger.SetAsync(True)", "process continue"]}
_ACT = {
    "gdb": "sys.modules['gdb_ipbp.inferior'].GdbInferior(None).exchange([], [{file!r}])",
    "lldb": "sys.modules['lldb_ipbp.inferior'].LldbInferior(lldb.debugger, lldb.debugger.GetSelectedTarget())"
    ".exchange([], [{file!r}])",
}


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds to announce `megabytes` of debug information; `stopped` is a median, too."""

    debugger: str
    has_breakpoint: bool
    megabytes: float
    median: float
    least: float
    stopped: float


def measure(debuggers: Sequence[str], sizes: Sequence[float], rounds: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="ipbp-bench-") as name:
        folder = Path(name)
        (folder / "program.c").write_text(_PROGRAM)
        subprocess.run(["gcc", "-g", "program.c", "-o", "program"], cwd=folder, check=True)
        for size in sizes:
            files = _files(folder, size, rounds)
            megabytes = files[0].stat().st_size / 1e6
            for debugger in debuggers:
                for has_breakpoint in (False, True):
                    times, gaps = zip(*_times(debugger, folder, files, has_breakpoint), strict=True)
                    yield Row(debugger, has_breakpoint, megabytes, median(times), min(times), median(gaps))


def line(row: Row) -> str:
    what = f"{row.debugger}{', a breakpoint' if row.has_breakpoint else ''}"
    return f"{what:20} {row.megabytes:6.1f}  {row.median:12.1f} {row.least:12.1f}  {row.stopped:10.1f}"


def _files(folder: Path, megabytes: float, count: int) -> list[Path]:
    """Debuggers know a file by its name, so each round has its own."""
    types = "".join(_TYPE.format(n=n, size=n % 7 + 1) for n in range(int(megabytes * TYPES_PER_MB)))
    (folder / "types.c").write_text(f"{types}int edited(int x) {{ return x + 2; }}\n")
    compile_it = ["gcc", "-g", "-fno-eliminate-unused-debug-types", "-c", "types.c"]
    subprocess.run(compile_it, cwd=folder, check=True)
    files = []
    for number in range(count):
        files.append(folder / f"patch-{megabytes}-{number}.elf")
        place = f"-Wl,-e,edited,-Ttext-segment={0x10000000 + number * 0x100000:#x}"
        subprocess.run(["gcc", "-nostdlib", "-static", place, "types.o", "-o", files[-1]], cwd=folder, check=True)
    return files


def _times(debugger: str, folder: Path, files: Sequence[Path], has_breakpoint: bool) -> list[tuple[float, float]]:
    gap = folder / "gap"
    gap.write_bytes(bytes(8))
    program = subprocess.Popen([folder / "program", gap])
    try:
        path, is_gdb = find_debugger(debugger), debugger == "gdb"
        say = "python" if is_gdb else "script"
        lines = [load_line(debugger), f"attach {program.pid}" if is_gdb else f"process attach --pid {program.pid}"]
        lines += [f"{say} import sys", f"{say} import {debugger}_ipbp.inferior"]
        lines += ["break edited" if is_gdb else "breakpoint set --name edited"] if has_breakpoint else []
        lines += _RUN[debugger]
        lines += [f"{say} {_TIMED.format(gap=str(gap), act=_ACT[debugger].format(file=str(file)))}" for file in files]
        options = ["-nx", "-q", "-batch"] if is_gdb else ["--no-lldbinit", "--batch"]
        options += [word for text in lines for word in ("-ex" if is_gdb else "-o", text)]
        said = subprocess.run([path, *options], capture_output=True, text=True, timeout=300, check=False).stdout
        found = [(float(one), float(other)) for one, other in re.findall(r"^took (\S+) (\S+)$", said, re.MULTILINE)]
        assert len(found) == len(files), said
        return found
    finally:
        program.kill()
        program.wait()
