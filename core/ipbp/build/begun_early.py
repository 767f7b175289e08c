"""Compiles that are begun before it is certain that they are wanted.

What a request wants compiled is known when the process, its images and how they are built have been looked at, which
takes some milliseconds. It nearly always is what the last request for that process compiled, if the source has another
content now. So such a compile is begun first of all. It counts when the very same one is wanted after all, and when it
went well; else it is ended, and nobody sees anything of it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ipbp.afterwards import afterwards
from ipbp.build.command import Command, refusals
from ipbp.build.compiler_run import CompilerRun, Compilers, compile_into
from ipbp.build.once import is_one_build
from ipbp.build.places import cache_folder
from ipbp.build.snapshot import digest_of, hash_files
from ipbp.build.texts import is_projects
from ipbp.build.trust import needs_agreement
from ipbp.errors import IpbpError
from ipbp.kept import Kept

_How = tuple[Command, tuple[str, ...]]
"""A command, and the flags in addition to its own."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """`files`: path -> sha256 of what it was compiled from last."""

    how: _How
    files: Mapping[str, str]

    def is_edited(self) -> bool:
        """What the system brings is not looked at here."""
        return any(digest_of(path) != digest for path, digest in self.files.items() if is_projects(path))


_compiled_last: Kept[Hashable, tuple[_Unit, ...]] = Kept(16)
"""Of the last 16 processes."""
_current: list[_Begun] = []


@contextmanager
def begun_early(process: Hashable) -> Iterator[None]:
    """Inside, the units that the last request for this process compiled are being compiled where one of their files has
    another content now. What was not taken by the end is ended."""
    if _current or is_one_build():
        yield
        return
    begun = _Begun()
    _current.append(begun)
    try:
        for unit in _compiled_last.get(process) or ():
            if unit.is_edited():
                begun.begin(unit)
        yield
    finally:
        _current.clear()
        begun.end()
        if begun.compiled:
            _compiled_last.replace(process, tuple(begun.compiled.values()), 1)


def taken(command: Command, flags: Sequence[str], compilers: Compilers) -> CompilerRun | None:
    """The run of this very command with these flags that was begun early, waited for; None when there is none, or it
    went wrong. It is stopped together with `compilers`."""
    early = _current[0].take((command, tuple(flags))) if _current else None
    if early is None:
        return None
    compilers.adopt(early.compilers)
    hashed = hash_files(early.unit.files)  # nobody has to wait for that later
    run = early.ended()
    return replace(run, hashed=hashed) if run is not None and run.status == 0 and run.object.is_file() else None


def note_compiled(command: Command, flags: Sequence[str], files: Mapping[str, str]) -> None:
    """The unit was compiled in this way, from these files (path -> sha256). Of several ways the first counts."""
    if _current:
        _current[0].compiled.setdefault(command, _Unit((command, tuple(flags)), files))


class _Begun:
    """The compiles of one request. `compiled`: all that it wanted in the end."""

    def __init__(self) -> None:
        self.compiled: dict[Command, _Unit] = {}
        self._lock = threading.Lock()
        self._waiting: dict[_How, _Early] = {}
        self._every: list[_Early] = []

    def begin(self, unit: _Unit) -> None:
        # As many as the machine has processors are compiled at the same time.
        is_room = len(self._every) < (os.cpu_count() or 1)
        if is_room and not refusals(unit.how[0]) and needs_agreement(unit.how[:1]) is None:
            self._waiting[unit.how] = _Early(unit)
            self._every.append(self._waiting[unit.how])

    def take(self, how: _How) -> _Early | None:
        with self._lock:
            return self._waiting.pop(how, None)

    def end(self) -> None:
        for early in self._every:
            early.compilers.stop()
        for early in self._every:
            early.ended()
            afterwards(early.forget)


class _Early:
    """One compile, in a thread."""

    def __init__(self, unit: _Unit) -> None:
        self.unit, self.compilers = unit, Compilers()
        self._run: CompilerRun | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="compile-", dir=cache_folder("objects")))
        self._thread = threading.Thread(target=self._compile, args=unit.how, daemon=True)
        self._thread.start()

    def _compile(self, command: Command, flags: Sequence[str]) -> None:
        with suppress(IpbpError, OSError):  # it is tried once more when it is wanted, and fails then
            own = filter(is_projects, self.unit.files)
            self._run = compile_into(self._folder / "0", command, flags, self.compilers, own)

    def ended(self) -> CompilerRun | None:
        self._thread.join()
        return self._run

    def forget(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
