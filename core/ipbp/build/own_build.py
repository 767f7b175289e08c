"""The project's own build command, where nothing says how a single source is compiled.

It runs in the user's tree, as the user's build always does, and what it rebuilt is found by content: an object whose
bytes are other than before. The old objects are put aside first, since the command writes over them.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipbp.build.command import Command
from ipbp.build.compile import Compiled, Tell
from ipbp.build.config import OwnBuild
from ipbp.build.dependencies import recorded_dependencies
from ipbp.build.dirty import Dirty, PatchedUnit
from ipbp.build.environment import environment_of
from ipbp.build.once import once
from ipbp.build.run import run_to_end
from ipbp.build.snapshot import MISSING, Snapshot
from ipbp.build.store import Store
from ipbp.errors import IpbpError


@dataclass(frozen=True, slots=True)
class Part:
    """What of the build is in one loaded image. `sources`: when its debug information tells; else all count that the
    patterns of ipbp.toml find. `mtime_ns`: of the mapped file. `known`: units that were patched, by source path."""

    sources: Sequence[Path]
    mtime_ns: int
    known: Mapping[str, PatchedUnit]


def run_own_build(own: OwnBuild, parts: Sequence[Part], store: Store, tell: Tell) -> list[tuple[Compiled, ...]]:
    """Run the command and return for each part the objects that differ from what runs. Ask `trust` before.

    `compile-failed` with the command's output; `build-command-missing`; `object-missing` when an object is not where
    ipbp.toml says.
    """
    before = once(("before own build", own), Snapshot)
    looks = [_Look(own, part, before, store) for part in parts]
    tell(f"running {' '.join(own.command)}")
    start = time.perf_counter()
    messages = once(("own build", own), lambda: _run(own))
    milliseconds = (time.perf_counter() - start) * 1000
    now = Snapshot()
    return [look.compiled(now, messages, milliseconds) for look in looks]


class _Look:
    """One part before and after the build. `objects`: by source; `old`: what may be the object that runs."""

    def __init__(self, own: OwnBuild, part: Part, before: Snapshot, store: Store) -> None:
        self.own, self.part, self.store = own, part, store
        self.objects = _units(own, part.sources)
        self.digest = {source: before.digest(str(object)) for source, object in self.objects.items()}
        self.old = {source: _put_aside(object, part.mtime_ns, before, store) for source, object in self.objects.items()}

    def compiled(self, now: Snapshot, messages: str, milliseconds: float) -> tuple[Compiled, ...]:
        found = []
        for source, object in self.objects.items():
            digest = now.digest(str(object))
            if not digest:
                raise _object_missing(self.own, source, object)
            reason = _reason(digest, self.digest[source], self.old[source], self.part.known.get(str(source)))
            if reason:
                command = Command(self.own.directory, source, object, ())
                files = recorded_dependencies(command, now) or (str(source),)
                dependencies = {path: now.digest(path) for path in files}
                unit = Dirty(command, reason, self.old[source])
                kept = self.store.put(object)
                place = self.store.get(kept)
                found.append(Compiled(str(source), place, kept, dependencies, milliseconds, messages, unit))
        return tuple(found)


def _units(own: OwnBuild, sources: Iterable[Path]) -> dict[Path, Path]:
    candidates = list(sources)
    if not candidates:
        for pattern, _ in own.objects:
            inside = glob.escape(pattern).replace(glob.escape("{name}"), "**/*")
            candidates += map(Path, sorted(glob.glob(inside, recursive=True)))
    pairs = ((source, own.object_of(source)) for source in candidates)
    return {source: object for source, object in pairs if object is not None}


def object_rows(own: OwnBuild, sources: Iterable[Path]) -> list[Command]:
    """The sources with their objects, as commands without arguments. No `sources`: all that ipbp.toml's patterns
    find."""
    return [Command(own.directory, source, object, ()) for source, object in _units(own, sources).items()]


def _put_aside(object: Path, image_mtime_ns: int, snapshot: Snapshot, store: Store) -> Path | None:
    """The object in the store, if it can be what the image was linked from."""
    digest = snapshot.digest(str(object))
    if digest and MISSING < snapshot.modified_ns(str(object)) <= image_mtime_ns:
        # Put aside already, where the build has run for another process since.
        return store.get(digest if store.has(digest) else store.put(object))
    return None


def _reason(digest: str, before: str, old: Path | None, unit: PatchedUnit | None) -> str:
    if unit is not None:
        return "its object is not the one that runs" if digest != unit.object else ""
    if digest != before:
        return "the build command made its object anew"
    return "its object is newer than the running program" if old is None else ""


def _run(own: OwnBuild) -> str:
    try:
        status, output = run_to_end(own.command, own.directory, environment_of(None))
    except OSError as error:
        raise IpbpError(
            "build-command-missing",
            f"{own.command[0]}, the build command of {own.file}, cannot be started: {error.strerror}",
            "Correct [build] in that file.",
        ) from error
    if status != 0:
        raise IpbpError(
            "compile-failed",
            f"the build command of {own.file} ended with status {status}; the process is untouched",
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
