"""The project's own build command, where nothing says how a single source is compiled.

It runs in the user's tree, as the user's build always does, and what it rebuilt is found by content: an object whose
bytes are other than before. The old objects are put aside first, since the command writes over them.
"""

from __future__ import annotations

import glob
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from ipbp.build.command import Command
from ipbp.build.compile import Compiled, Tell
from ipbp.build.config import OwnBuild
from ipbp.build.dependencies import recorded_dependencies
from ipbp.build.dirty import Dirty, PatchedUnit
from ipbp.build.environment import environment_of
from ipbp.build.snapshot import MISSING, Snapshot
from ipbp.build.store import Store
from ipbp.errors import IpbpError


def run_own_build(
    own: OwnBuild,
    sources: Iterable[Path],
    image_mtime_ns: int,
    known: Mapping[str, PatchedUnit],
    store: Store,
    tell: Tell,
) -> tuple[Compiled, ...]:
    """Run the command and return the objects that differ from what runs. Ask `trust` before.

    `sources`: of the program, when its debug information tells; else all that the patterns of ipbp.toml find.
    `compile-failed` with the command's output; `build-command-missing`; `object-missing` when an object is not where
    ipbp.toml says.
    """
    units = _units(own, sources)
    snapshot = Snapshot()
    before = {source: _put_aside(object, image_mtime_ns, snapshot, store) for source, object in units.items()}
    tell(f"running {' '.join(own.command)}")
    start = time.perf_counter()
    messages = _run(own)
    milliseconds = (time.perf_counter() - start) * 1000
    now = Snapshot()
    found = []
    for source, object in units.items():
        digest = now.digest(str(object))
        if not digest:
            raise _object_missing(own, source, object)
        reason = _reason(digest, snapshot.digest(str(object)), before[source], known.get(str(source)))
        if reason:
            command = Command(own.directory, source, object, ())
            files = recorded_dependencies(command, now) or (str(source),)
            dependencies = {path: now.digest(path) for path in files}
            unit = Dirty(command, reason, before[source])
            kept = store.put(object)
            found.append(Compiled(str(source), store.get(kept), kept, dependencies, milliseconds, messages, unit))
    return tuple(found)


def _units(own: OwnBuild, sources: Iterable[Path]) -> dict[Path, Path]:
    candidates = list(sources)
    if not candidates:
        for pattern, _ in own.objects:
            inside = glob.escape(pattern).replace(glob.escape("{name}"), "**/*")
            candidates += map(Path, sorted(glob.glob(inside, recursive=True)))
    pairs = ((source, own.object_of(source)) for source in candidates)
    return {source: object for source, object in pairs if object is not None}


def _put_aside(object: Path, image_mtime_ns: int, snapshot: Snapshot, store: Store) -> Path | None:
    """The object in the store, if it can be what the image was linked from."""
    if snapshot.digest(str(object)) and MISSING < snapshot.modified_ns(str(object)) <= image_mtime_ns:
        return store.get(store.put(object))
    return None


def _reason(digest: str, before: str, old: Path | None, unit: PatchedUnit | None) -> str:
    if unit is not None:
        return "its object is not the one that runs" if digest != unit.object else ""
    if digest != before:
        return "the build command made its object anew"
    return "its object is newer than the running program" if old is None else ""


def _run(own: OwnBuild) -> str:
    try:
        done = subprocess.run(
            own.command,
            cwd=own.directory,
            env=environment_of(None),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except OSError as error:
        raise IpbpError(
            "build-command-missing",
            f"{own.command[0]}, the build command of {own.file}, cannot be started: {error.strerror}",
            "Correct [build] in that file.",
        ) from error
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise IpbpError(
            "compile-failed",
            f"the build command of {own.file} ended with status {done.returncode}; the process is untouched",
            "Correct the source and try again.",
            output,
        )
    return output


def _object_missing(own: OwnBuild, source: Path, object: Path) -> IpbpError:
    return IpbpError(
        "object-missing",
        f"{object}, where {own.file} says that the object of {source.name} is, is not there after the build",
        "Correct [build] objects in that file.",
    )
