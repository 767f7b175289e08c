"""Which translation units may differ from what runs, before anything is compiled.

A unit that is named here in vain costs a compile, whose result is then found to be the same; one that is missed is an
edit that silently does nothing. So a time stamp that leaves a doubt counts as dirty, and a unit that was patched
before is judged by the content of its files alone: two edits within one tick of the clock are two edits.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ipbp.build.command import Command
from ipbp.build.dependencies import listed_dependencies, recorded_dependencies
from ipbp.build.snapshot import MISSING, Snapshot


class PatchedUnit(Protocol):
    """What the journal knows of a unit that was patched: its object's digest, and the sha256 of every file that it
    was compiled from by path ("" for one that was not there)."""

    @property
    def object(self) -> str: ...
    @property
    def dependencies(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Dirty:
    """A unit to compile. `reason` in words. `old_object`: the build tree's object that was made before the edit and
    is not newer than the running image; None when the tree has none such (it was rebuilt, or the unit is known to
    the journal, which is the better witness)."""

    command: Command
    reason: str
    old_object: Path | None


def dirty(
    commands: Iterable[Command],
    image_mtime_ns: int,
    known: Mapping[str, PatchedUnit],
    snapshot: Snapshot | None = None,
    turned: Container[str] = (),
) -> list[Dirty]:
    """The units to compile, in the order of the commands. `image_mtime_ns`: of the file that is mapped, also when
    its path was replaced. `known`: by source path. `turned`: sources that are compiled in another way now.

    May start compilers (see `dependencies.listed_dependencies`): ask `trust` before.
    """
    snapshot = snapshot or Snapshot()
    found: dict[int, Dirty] = {}
    unlisted: dict[int, Command] = {}
    # A source that is gone cannot be compiled; who has its functions now is told by the objects (pipeline.moves).
    rows = [row for row in commands if snapshot.modified_ns(str(row.source)) != MISSING]
    for index, command in enumerate(rows):
        unit = known.get(str(command.source))
        if str(command.source) in turned:
            reason = "it is compiled in another way now"
        elif unit is not None:
            reason = _changed_content(unit, snapshot)
        else:
            reason = _touched(command, (str(command.source),), image_mtime_ns, snapshot)
            if not reason:
                dependencies = recorded_dependencies(command, snapshot)
                if dependencies is None and command.refusal is None:
                    unlisted[index] = command
                    continue
                reason = _touched(command, dependencies or (), image_mtime_ns, snapshot)
        if reason:
            old = None if unit is not None else _old_object(command, image_mtime_ns, snapshot)
            found[index] = Dirty(command, reason, old)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        listed = pool.map(lambda command: listed_dependencies(command, snapshot), unlisted.values())
        for (index, command), dependencies in zip(unlisted.items(), listed, strict=True):
            reason = _touched(command, dependencies or (), image_mtime_ns, snapshot)
            if dependencies is None:
                reason = "the compiler cannot list its headers"
            if reason:
                found[index] = Dirty(command, reason, _old_object(command, image_mtime_ns, snapshot))
    return [found[index] for index in sorted(found)]


def _changed_content(unit: PatchedUnit, snapshot: Snapshot) -> str:
    if not unit.object:
        return "its functions were in another file"
    for path, digest in unit.dependencies.items():
        if snapshot.digest(path) != digest:
            return f"{path} changed"
    return ""


def _touched(command: Command, dependencies: Iterable[str], image_mtime_ns: int, snapshot: Snapshot) -> str:
    """Why a unit that was never patched may differ from the image, or "".

    Where the build left no object (it was removed, or the program was made in one step), the image itself is the
    only thing that the files can be compared with.
    """
    built = snapshot.modified_ns(str(command.output)) if command.output else MISSING
    if built > image_mtime_ns:
        return "its object is newer than the running program"
    since = image_mtime_ns if built == MISSING else built
    for path in dependencies:
        # The same tick counts as newer: the clock of a file system stands still for some milliseconds.
        if snapshot.modified_ns(path) >= since:
            return f"{path} is newer than {'the running program' if built == MISSING else 'its object'}"
    return ""


def _old_object(command: Command, image_mtime_ns: int, snapshot: Snapshot) -> Path | None:
    built = snapshot.modified_ns(str(command.output)) if command.output else MISSING
    return command.output if MISSING < built <= image_mtime_ns else None
