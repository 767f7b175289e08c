"""Small programs, really compiled, linked and running, and their memory as ipbp reads it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ipbp.formats.elf_object import read_object
from ipbp.formats.elf_process import LoadedProcess, read_process
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import LinkGraph
from ipbp.protocol import Region

WAIT = """
#include <stdio.h>
#include <unistd.h>
static void ready_and_wait(void) { char c; puts("ready"); fflush(stdout); if (read(0, &c, 1) < 0) puts("?"); }
"""
"""For the top of a main file: says that it is ready, then waits until its standard input ends."""


def compile_object(folder: Path, name: str, text: str, *flags: str, cc: str = "gcc") -> Path:
    """`name` without suffix; the source is written to `folder` and compiled there."""
    source, target = folder / f"{name}.c", folder / f"{name}.o"
    source.write_text(text)
    run([cc, "-c", *flags, source.name, "-o", str(target)], folder)
    return target


def build(
    folder: Path, sources: Mapping[str, str], *flags: str, cc: str = "gcc", link: Sequence[str] = (), ld: str = ""
) -> tuple[Path, dict[str, Path]]:
    """The program and its objects by name. `ld`: the compiler that links, `cc` when empty."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = {name: compile_object(folder, name, text, *flags, cc=cc) for name, text in sources.items()}
    program = folder / "program"
    run([ld or cc, *link, *map(str, objects.values()), "-o", str(program)], folder)
    return program, objects


def run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def graph_of(path: Path) -> LinkGraph:
    return read_object(path.read_bytes(), str(path))


@dataclass(frozen=True)
class Running:
    pid: int
    program: Path

    def regions(self) -> list[Region]:
        rows = [line.split(None, 5) for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines()]
        return [_region(row) for row in rows]

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY)
        try:
            return [_read_whole(memory, address, size) for address, size in ranges]
        finally:
            os.close(memory)

    def process(self) -> LoadedProcess:
        return read_process(self.pid, self.regions(), str(self.program), self.read)

    def image(self) -> LoadedImage:
        return self.process().executable_image()


@contextmanager
def running(program: Path, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """The program, started and past its `ready_and_wait`."""
    with subprocess.Popen(
        [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **(environment or {})}
    ) as child:
        try:
            assert child.stdout is not None
            assert any(line == b"ready\n" for line in child.stdout), f"{program} ended before it was ready"
            yield Running(child.pid, program)
        finally:
            child.kill()


@contextmanager
def not_yet_running(program: Path) -> Iterator[Running]:
    """The program, held at the dynamic loader's first instruction (ptrace(2), PTRACE_TRACEME and execve)."""
    libc = ctypes.CDLL(None)
    pid = os.fork()
    if pid == 0:
        libc.ptrace(0, 0, 0, 0)
        os.execv(str(program), [str(program)])
    try:
        os.waitpid(pid, 0)
        yield Running(pid, program)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _region(row: Sequence[str]) -> Region:
    start, end = (int(part, 16) for part in row[0].split("-"))
    protection = "".join(letter for letter in row[1] if letter in "rwx")
    return Region(start, end, protection, int(row[2], 16), row[5] if len(row) > 5 else "", int(row[4]))


def _read_whole(memory: int, address: int, size: int) -> bytes | None:
    try:
        content = os.pread(memory, size, address)
    except OSError:  # not mapped
        return None
    return content if len(content) == size else None
