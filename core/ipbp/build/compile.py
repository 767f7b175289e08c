"""The dirty units, compiled at once into a folder of ours: all of them, or none counts.

The compilers run as the user's build would run them, in their recorded directory, with nothing to read from and
their messages kept as they were printed. A file that is saved while it is being compiled is the trap here: the journal
would remember the new text with the old object, and the edit would be lost. So what the unit was made from is
hashed, and where a time stamp leaves a doubt the unit is compiled once more until nothing moves.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from ipbp.build.begun_early import note_compiled, taken
from ipbp.build.command import Command, refusals
from ipbp.build.compiler_run import Compilers, compile_into
from ipbp.build.depfile import dependencies_of
from ipbp.build.dirty import Dirty
from ipbp.build.once import once
from ipbp.build.places import cache_folder
from ipbp.build.snapshot import Snapshot
from ipbp.build.store import Store
from ipbp.errors import IpbpError, Refused
from ipbp.host.shortage import full_disk

Tell = Callable[[str], None]
_GLANCE = 0.2  # seconds after which a signal is seen that came just before the wait began
ATTEMPTS = 5
"""Compiles of one unit whose files keep changing meanwhile."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One unit's new object. `source`: absolute; the key of the unit in the journal. `object`: its file in the store,
    `digest`: its name there. `dependencies`: path -> sha256 of all that it was made from ("" for a name that is no
    file). `messages`: what the compiler printed (warnings). `dirty`: why, and with which old object. `is_alike`: it is
    a crate that was compiled along with one that it uses, and came out as it runs."""

    source: str
    object: Path
    digest: str
    dependencies: dict[str, str]
    milliseconds: float
    messages: str
    dirty: Dirty
    is_alike: bool = False


def compile_units(
    units: Sequence[Dirty], store: Store, tell: Tell, colour: bool = False, flags: Sequence[str] = ()
) -> tuple[Compiled, ...]:
    """The new objects, in the order of `units`. `flags`: in addition to those of the commands. Runs the project's
    commands: ask `trust` before.

    `Refused` with every reason when commands cannot be replayed; `compile-failed` with what the compilers printed,
    word for word, as `detail`; `machine-short`; `compiler-missing`; `sources-changing`. An interrupt ends all
    compilers.
    """
    reasons = [refusal for unit in units for refusal in refusals(unit.command)]
    if reasons:
        raise Refused(reasons)
    if not units:
        return ()
    if colour:
        flags = (*flags, "-fdiagnostics-color=always")
    tell(f"compiling {_names([unit.command.source.name for unit in units])}")
    running = Compilers()
    with tempfile.TemporaryDirectory(prefix="compile-", dir=cache_folder("objects")) as folder:
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            # Each unit has a folder of its own: compilers name side files after the object.
            jobs = [
                pool.submit(_compile_once, unit, Path(folder, str(number)), store, flags, running)
                for number, unit in enumerate(units)
            ]
            pending = set(jobs)
            while pending:
                done, pending = wait(pending, timeout=_GLANCE, return_when=FIRST_EXCEPTION)
                for job in done:
                    job.result()
            outcomes = [job.result() for job in jobs]
            short = full_disk(folder) if any(isinstance(outcome, _Failed) for outcome in outcomes) else None
            if short is not None:  # which the compilers say in words of their own
                raise short
        finally:
            running.stop()
            pool.shutdown(cancel_futures=True)
    failed = [outcome for outcome in outcomes if isinstance(outcome, _Failed)]
    if failed:
        raise _compile_failed(failed)
    return tuple(outcome for outcome in outcomes if isinstance(outcome, Compiled))


@dataclass(frozen=True, slots=True)
class _Failed:
    source: Path
    messages: str
    status: int


def _compile_once(
    unit: Dirty, folder: Path, store: Store, flags: Sequence[str], running: Compilers
) -> Compiled | _Failed:
    key = "compile", store, unit.command, tuple(flags)
    made = once(key, lambda: _compile(unit, folder, store, flags, running))
    return made if isinstance(made, _Failed) else replace(made, dirty=unit)


def _compile(unit: Dirty, folder: Path, store: Store, flags: Sequence[str], running: Compilers) -> Compiled | _Failed:
    command = unit.command
    start = time.perf_counter()
    before: dict[str, str] | None = None
    for attempt in range(ATTEMPTS):
        made = taken(command, flags, running) if attempt == 0 else None
        made = made or compile_into(folder / str(attempt), command, flags, running)
        if made.status != 0:
            return _Failed(command.source, made.messages, made.status)
        if not made.object.is_file():
            return _Failed(command.source, f"{made.messages}the command made no object\n", made.status)
        files = _files(command, made.depfile)
        snapshot = Snapshot(made.hashed)
        after = {path: snapshot.digest(path) for path in files}
        if after == before or all(made.began.is_after(snapshot, path) for path in files):
            digest = store.put(made.object)
            note_compiled(command, flags, after)
            milliseconds = (time.perf_counter() - start) * 1000
            return Compiled(str(command.source), store.place(digest), digest, after, milliseconds, made.messages, unit)
        before = after
    raise IpbpError(
        "sources-changing",
        f"{command.source} or a file that it includes changed during each of {ATTEMPTS} compiles",
        "Wait until the files are written, then try again.",
    )


def _files(command: Command, depfile: Path) -> list[str]:
    snapshot = Snapshot()
    try:
        names = dependencies_of(depfile.read_bytes())
    except FileNotFoundError:
        names = ()  # plain assembly has no dependencies but itself
    return list(dict.fromkeys([str(command.source), *(snapshot.locate(str(command.directory), n) for n in names)]))


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _compile_failed(failed: Sequence[_Failed]) -> IpbpError:
    names = _names([outcome.source.name for outcome in failed])
    verb = "does not compile" if len(failed) == 1 else "do not compile"
    return IpbpError(
        "compile-failed",
        f"{names} {verb}; nothing was changed",
        "Correct the source and try again.",
        "".join(outcome.messages for outcome in failed) or f"the compiler ended with status {failed[0].status}\n",
    )
