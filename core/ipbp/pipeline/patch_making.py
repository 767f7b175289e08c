"""A patch file out of old and new objects: everything is compared with the images of the build, as it will be with the
memory of a process that runs them. What would be refused there is refused here, and no file is made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ipbp.build.compile import Tell
from ipbp.build.notes import write_whole
from ipbp.build.store import Store
from ipbp.errors import IpbpError, Refusal, raise_all
from ipbp.formats.elf_linked import PT_INTERP, map_file, read_linked
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.unit import UNBOUND
from ipbp.patch_file import ListedFunction, PatchedBuild, PatchFile, UnitChange, needed, pack, unpack
from ipbp.pipeline.agreed import one_of_each_copy
from ipbp.pipeline.ahead import Ahead
from ipbp.pipeline.compared import Compared, compared
from ipbp.pipeline.judge import Judged, judge
from ipbp.pipeline.moves import Followed, Scene, follow_crates, follow_definitions
from ipbp.pipeline.patch_units import edited_unit, file_commands
from ipbp.pipeline.readable import readable, readable_errors, readable_name
from ipbp.pipeline.record import Record
from ipbp.pipeline.report import function_rows, new_variables
from ipbp.stages.compare import Status


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image as its file has it, at its link addresses, and its units that may have changed; their `image` is not
    looked at."""

    image: LoadedImage
    units: Sequence[UnitChange]


def build_of(image: LoadedImage) -> PatchedBuild:
    """What tells the image's build from every other."""
    is_program = not image.is_pie or read_linked(map_file(image.file), image.path).segment(PT_INTERP) is not None
    return PatchedBuild(image.build_id, Path(image.path).name, image.machine, is_program)


def memory_of(image: LoadedImage) -> MemoryReader:
    """What a process has there before its first instruction."""
    return lambda ranges: [image.original(address, size) for address, size in ranges]


def make_patch(
    images: Sequence[BuiltImage], allow_layout: Collection[str], store: Store, tell: Tell, keep_all: bool
) -> PatchFile | None:
    """The patch of these units, whose objects are in the store; None when nothing differs. `keep_all`: units that do
    not differ are in it, too. Errors: `Refused`, with `no-build-id`, `object-not-linked` and all that a process would
    be refused for."""
    with readable_errors():
        return _make_patch(images, allow_layout, store, tell, keep_all)


def _make_patch(
    images: Sequence[BuiltImage], allow_layout: Collection[str], store: Store, tell: Tell, keep_all: bool
) -> PatchFile | None:
    raise_all(_without_build_id(row.image) for row in images if not row.image.build_id)
    builds: list[PatchedBuild] = []
    units: list[UnitChange] = []
    functions: list[ListedFunction] = []
    data: list[str] = []
    notes: dict[str, None] = {}
    refusals: list[Refusal] = []
    for row in images:
        followed, found, unproved = _compared(row, allow_layout, store, tell)
        refusals += [*unproved, *found.refusals]
        differing = {unit.edited.name for unit in found.judged if _differs(unit)}
        kept = [unit for unit in row.units if keep_all or unit.name in differing]
        if not differing or not kept:
            continue
        number = len(builds)
        builds.append(build_of(row.image))
        units += [replace(unit, image=number) for unit in kept]
        functions += _listed(found.changed, followed, number)
        data += [readable(name) for unit in found.changed for name in new_variables(unit)]
        notes.update(dict.fromkeys(map(readable, found.notes)))
    raise_all(refusals)
    if not units:
        return None
    objects = _objects(units, store)
    return PatchFile(tuple(builds), tuple(units), tuple(functions), tuple(data), tuple(notes), objects)


def write_patch_file(patch: PatchFile, file: Path) -> PatchFile:
    """Write it, for others to read; the patch with its identity. Errors: `patch-file-unwritable`,
    `patch-file-too-large`."""
    content = pack(patch)
    try:
        write_whole(file, content, 0o644)
    except OSError as error:
        raise IpbpError(
            "patch-file-unwritable", f"{file}: cannot be written: {error.strerror}", "Name another file."
        ) from error
    return unpack(content, str(file))


def _compared(
    row: BuiltImage, allow_layout: Collection[str], store: Store, tell: Tell
) -> tuple[Followed, Compared, list[Refusal]]:
    image, read = row.image, memory_of(row.image)
    edited = [edited_unit(unit.name, unit, image, None, store) for unit in row.units]
    judged = judge(edited, Record(), store, read, Ahead(), allow_layout)
    unproved = [_not_linked(unit, image) for unit in judged if unit.is_lifted and unit.edited.old_object is not None]
    if any(unit.is_crate for unit in row.units):
        followed = follow_crates(judged)
    else:
        commands = file_commands(Path(image.path), [unit.name for unit in row.units])
        scene = Scene({}, store, image, read, 0, tell)
        followed = one_of_each_copy(follow_definitions(judged, commands, scene, lambda _units: frozenset()))
    return followed, compared({image.key: followed}, Record(), allow_layout, store, read, tell), unproved


def _differs(unit: Judged) -> bool:
    is_same = bool((unit.comparison.status == Status.SAME).all())
    return unit.is_changed or not is_same or bool(unit.comparison.removed)


def _listed(changed: Iterable[Judged], followed: Followed, image: int) -> list[ListedFunction]:
    return [
        ListedFunction(readable_name(row.name), row.name, row.status, readable(row.reason), row.file, image)
        for unit in changed
        for row in function_rows(unit, np.full(len(unit.edited.new.blocks), UNBOUND, np.int64), followed, image)
    ]


def _objects(units: Iterable[UnitChange], store: Store) -> Mapping[str, bytes]:
    """All that the units name, by content hash."""
    found: dict[str, bytes] = {}
    for unit in units:
        first = {digest: store.get(digest).read_bytes() for digest in (unit.new, unit.old) if digest}
        found.update({digest: store.get(digest).read_bytes() for digest in needed(unit, first)})
    return found


def _without_build_id(image: LoadedImage) -> Refusal:
    return Refusal(
        "no-build-id",
        f"{image.path} has no build id, so that a patch file could not tell which processes it fits",
        "Link with `-Wl,--build-id`.",
        file=Path(image.path).name,
    )


def _not_linked(unit: Judged, image: LoadedImage) -> Refusal:
    return Refusal(
        "object-not-linked",
        f"{image.path} was not linked from the object that was found for {unit.edited.name}",
        "Give the build tree as it was when the program was linked.",
        file=unit.edited.name,
    )
