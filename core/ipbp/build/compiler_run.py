"""One run of a compiler of the project's for one source, into a folder of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ipbp.build.command import Command, for_patch
from ipbp.build.compilers_time import compiling
from ipbp.build.environment import environment_of
from ipbp.build.snapshot import Hashed, Snapshot
from ipbp.errors import IpbpError

_TICK_MILLISECONDS = 12
"""CONFIG_HZ of Linux is 100 or more."""
_CLOCK_REALTIME_COARSE = 5  # linux/time.h


@dataclass(frozen=True, slots=True)
class Began:
    """The moment before a compiler was started, in nanoseconds since the epoch. `place_ns`: by the clock of the file
    system that is `device`. `elsewhere_ns`: the kernel's own, which no time stamp of this machine is behind."""

    device: int
    place_ns: int
    elsewhere_ns: int

    def is_after(self, snapshot: Snapshot, path: str) -> bool:
        """Whether the file was last saved before."""
        at_ns = self.place_ns if snapshot.device(path) == self.device else self.elsewhere_ns
        return snapshot.modified_ns(path) < at_ns


@dataclass(frozen=True, slots=True)
class CompilerRun:
    """`status`: negative for a signal. `messages`: all that was printed. `object` and `depfile`: where these are if it
    went well. `hashed`: files that it was expected to read, as they were hashed while it ran."""

    began: Began
    status: int
    messages: str
    object: Path
    depfile: Path
    hashed: Mapping[str, Hashed] = field(default_factory=dict)


class Compilers:
    """The compilers that run now, each the leader of a process group, so that its children end with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._others: list[Compilers] = []

    def run(self, words: Sequence[str], directory: Path, environment: dict[str, str]) -> tuple[int, str]:
        """Exit status (negative: a signal) and all output of one process."""
        with self._lock:
            if self._stopped:
                return -signal.SIGTERM, ""
            process = subprocess.Popen(
                words,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
            self._processes.add(process)
        with compiling():
            output, _ = process.communicate()
        with self._lock:
            self._processes.discard(process)
        return process.returncode, output.decode("utf-8", "replace")

    def adopt(self, others: Compilers) -> None:
        """These are stopped together with ours."""
        with self._lock:
            self._others.append(others)
            is_late = self._stopped
        if is_late:
            others.stop()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                # Not waited for yet by `communicate`, so the number still means this group.
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
            others = list(self._others)
        for row in others:
            row.stop()


def compile_into(
    place: Path, command: Command, flags: Sequence[str], compilers: Compilers, edited: Iterable[str] = ()
) -> CompilerRun:
    """Run it with these flags in addition; `place` is made for it. `edited`: files beside the source that may have been
    saved just now. Ask `trust` before.

    Errors: `build-directory-missing`, `compiler-missing`.
    """
    began = _made_after(place, [str(command.source), *edited])
    object, depfile = place / f"{command.source.stem}.o", place / "dependencies"
    status, messages = _run(command, for_patch(command, object, depfile, flags), compilers)
    return CompilerRun(began, status, messages, object, depfile)


def _made_after(place: Path, saved: Sequence[str]) -> Began:
    """Make the folder. Clocks of file systems stand still for some milliseconds: what was saved in the same tick would
    be taken for saved since, and compiled twice. So the next tick is waited for; or none where a time stamp that was
    looked at makes the next one finer (Linux 6.13, "multigrain timestamps")."""
    snapshot = Snapshot()
    place.mkdir(parents=True)
    began = _now(place)
    for attempt in range(_TICK_MILLISECONDS):
        if all(began.is_after(snapshot, path) for path in saved):
            break
        if attempt:
            time.sleep(0.001)
        os.utime(place)
        began = _now(place)
    return began  # also when a file is of tomorrow


def _now(place: Path) -> Began:
    elsewhere_ns, status = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE), place.stat()
    return Began(status.st_dev, status.st_mtime_ns, elsewhere_ns)


def _run(command: Command, words: Sequence[str], compilers: Compilers) -> tuple[int, str]:
    try:
        return compilers.run(words, command.directory, environment_of(command))
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if not command.directory.is_dir():
            raise IpbpError(
                "build-directory-missing",
                f"{command.directory}, the directory in which {command.source.name} is compiled, is not there",
                "Configure the build again, or name another build folder with --build-dir.",
            ) from error
        raise IpbpError(
            "compiler-missing",
            f"{words[0]}, which compiles {command.source.name}, cannot be started: {error.strerror}",
            "Install this compiler, or let the build system record its commands again.",
        ) from error
