"""Which translation units were edited, and their new objects: from a build, or the two objects that a user named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ipbp.build.compile import Compiled
from ipbp.build.plan import Commands, find_commands, rebuild
from ipbp.build.store import Store
from ipbp.errors import IpbpError, Refusal, Refused
from ipbp.formats.elf_object import read_object
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import LinkGraph
from ipbp.pipeline.record import Record
from ipbp.pipeline.request import Request
from ipbp.stages.branches import with_local_branches


@dataclass(frozen=True, slots=True)
class Edited:
    """`name`: the unit's key in the journal, its source path where that is known. `digest`: of the new object in the
    store. `old_object`: a file that may be the object that was linked, still to be proved. `dependencies`: path ->
    sha256 of what the new object was made from."""

    name: str
    new: LinkGraph
    digest: str
    old_object: Path | None
    dependencies: dict[str, str]


@dataclass(frozen=True, slots=True)
class EditedUnits:
    """`commands`: how the project is built, None when the user named the objects."""

    units: tuple[Edited, ...]
    notes: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    commands: Commands | None = None


def edited_units(request: Request, image: LoadedImage, store: Store, tell: Callable[[str], None]) -> EditedUnits:
    """All units whose files may differ from what runs; the diff then tells which really do."""
    if request.objects is not None:
        return _given(*request.objects, request.record, store)
    commands = find_commands(
        Path(request.description.executable),
        build_dir=request.build_dir,
        compile_commands=request.compile_commands,
        debug_file=Path(image.debug_file),
    )
    compiled = rebuild(
        commands, os.stat(image.file).st_mtime_ns, request.record.units, store, tell, colour=request.colour
    )
    units, refusals = as_edited(compiled)
    warnings = tuple(row.messages.rstrip() for row in compiled if row.messages.strip())
    return EditedUnits(units, (*commands.notes, *warnings), refusals, commands)


def as_edited(compiled: Iterable[Compiled]) -> tuple[tuple[Edited, ...], tuple[Refusal, ...]]:
    """The new objects as graphs, and why some cannot be read."""
    units: list[Edited] = []
    refusals: list[Refusal] = []
    for row in compiled:
        try:
            graph = with_local_branches(read_object(row.object.read_bytes(), row.source))
        except Refused as refused:
            refusals.extend(refused.refusals)
            continue
        units.append(Edited(row.source, graph, row.digest, row.dirty.old_object, row.dependencies))
    return tuple(units), tuple(refusals)


def _given(old: Path, new: Path, record: Record, store: Store) -> EditedUnits:
    content = _content(new)
    graph = with_local_branches(read_object(content, str(new)))
    before = store.put(_content(old))
    # An object that runs already by an earlier patch is that patch's unit.
    names = [name for name, unit in record.units.items() if unit.object == before]
    name = names[0] if names else str(old.absolute())
    return EditedUnits((Edited(name, graph, store.put(content), store.get(before), {}),), (), ())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IpbpError(
            "object-unreadable", f"{path}: cannot be read: {error.strerror}", "Name two existing object files."
        ) from error
