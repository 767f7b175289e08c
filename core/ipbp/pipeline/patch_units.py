"""The units of a patch file, as edited units of the process: from here on they take the way of every other edit.

A file says how the images that it fits are to run, as an edit that was just compiled does. So what an earlier patch
changed in such an image, and this file has not, runs again as it was built.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ipbp.build.plan import Commands, Origin
from ipbp.build.producer import SourceUnit
from ipbp.build.store import Store
from ipbp.errors import Refusal, raise_all
from ipbp.formats.elf_mapped import VDSO
from ipbp.formats.elf_module import LoadedModule
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import LoadedImage
from ipbp.members import listed
from ipbp.patch_file import PatchedBuild, UnitChange, read_patch_file
from ipbp.pipeline.edited import Built, Edited, EditedUnits, crate_unit
from ipbp.pipeline.judge import Judged
from ipbp.pipeline.record import UnitRecord
from ipbp.pipeline.request import Request
from ipbp.pipeline.stored import graph_of
from ipbp.stages.branches import with_local_branches

Known = Mapping[str, UnitRecord]


def units_of_file(path: Path, request: Request, process: LoadedProcess, store: Store) -> EditedUnits:
    """The units of the file in every image that they fit, and those that it puts back; the objects are in the store
    then. Errors: those of `read_patch_file`, `Refused` with `patch-other-build` or `earlier-patch-unknown`."""
    patch = read_patch_file(path)
    modules = [_modules(image, process) for image in patch.images]
    raise_all(_other_build(path, row, process) for row, found in zip(patch.images, modules, strict=True) if not found)
    for content in patch.objects.values():
        store.put(content)
    units: list[Edited] = []
    refusals: list[Refusal] = []
    built: list[Built] = []
    for number, found in enumerate(modules):
        rows = [row for row in patch.units if row.image == number]
        for module in found:
            known = request.record.units(module.key)
            named = {_name_in(known, row): row for row in rows}
            back, unknown = _put_back(known, named.keys(), path, store)
            refusals += unknown
            runs = {name: unit.object for name, unit in known.items()}
            if not back and not unknown and all(runs.get(name) == row.new for name, row in named.items()):
                continue
            units += [edited_unit(name, row, module.image, known.get(name), store) for name, row in named.items()]
            units += [edited_unit(row.name, row, module.image, known[row.name], store) for row in back]
            if not any(row.is_crate for row in rows):
                built.append(Built(module, file_commands(path, named.keys())))
    raise_all(refusals)
    return EditedUnits(tuple(units), (), (), tuple(built), same=f"{path.name} is applied already")


def not_as_built(judged: Iterable[Judged]) -> list[Refusal]:
    """Units of a file whose old object is not what memory holds: something else has changed the process."""
    return [
        Refusal(
            "not-the-running-code",
            f"the process does not run the code that {unit.edited.name} was built to; another tool, or a patch that is "
            "written down elsewhere, may have changed it",
            "Start the program again, then apply the file.",
            file=unit.edited.name,
        )
        for unit in judged
        if unit.is_lifted and unit.edited.old_object is not None
    ]


def edited_unit(name: str, row: UnitChange, image: LoadedImage, known: UnitRecord | None, store: Store) -> Edited:
    """The unit of a patch file, whose objects are in the store. `name`, `known`: in the record. Errors: those of
    `read_stored`."""
    old = store.get(row.old) if row.old else None
    # A file that is not there now, but then is, is another one than it was.
    dependencies = dict(row.dependencies) or ({name: ""} if os.path.isabs(name) else {})
    if row.is_crate:
        return crate_unit(name, row.new, old, dependencies, image, row.is_optimised, row.flags, known, store)
    graph = with_local_branches(graph_of(row.new, store.get(row.new), name))
    return Edited(
        name=name,
        new=graph,
        digest=row.new,
        old_object=old,
        dependencies=dependencies,
        image=image,
        is_optimised=row.is_optimised,
        flags=row.flags,
        is_newcomer=row.is_newcomer,
    )


def is_crate(digest: str, store: Store) -> bool:
    """Whether this object of the store is a list of a crate's objects."""
    return listed(store.get(digest).read_bytes()) is not None


def _modules(image: PatchedBuild, process: LoadedProcess) -> list[LoadedModule]:
    """Every load of the image; a library may have several (dlmopen(3))."""
    rows = (module for module in process.modules if module.mapped.path != VDSO)
    return [module for module in rows if module.file.build_id() == image.build_id]


def _other_build(path: Path, image: PatchedBuild, process: LoadedProcess) -> Refusal:
    others = [
        module
        for module in process.modules
        if (module.is_executable if image.is_executable else Path(module.mapped.path).name == image.name)
    ]
    there = f"{others[0].mapped.path} with {_shown(others[0].file.build_id())}" if others else "nothing of that name"
    return Refusal(
        "patch-other-build",
        f"{path.name} is for {image.name} with {_shown(image.build_id)}, and the process runs {there}",
        "Apply the file that was made for this build; `ipbp inspect FILE` shows which one it fits.",
        file=image.name,
    )


def _shown(build_id: str) -> str:
    return f"build id {build_id}" if build_id else "no build id"


def _name_in(known: Known, row: UnitChange) -> str:
    """The unit's name in the record: a patch that was not made from a file may have given it another one."""
    if row.name in known or not row.old:
        return row.name
    return next((name for name, unit in known.items() if unit.linked == row.old), row.name)


def _put_back(known: Known, named: Collection[str], path: Path, store: Store) -> tuple[list[UnitChange], list[Refusal]]:
    """Units that an earlier patch changed and that the file has not, as they were linked."""
    back: list[UnitChange] = []
    refusals: list[Refusal] = []
    for name, unit in known.items():
        if name in named:
            continue
        if not unit.object:
            if not unit.address:  # what came out of an archive does no harm, what went to another unit may
                refusals.append(_unknown(name, path))
        elif unit.linked == "":
            refusals.append(_unknown(name, path))
        elif unit.linked is not None and unit.linked != unit.object:
            back.append(UnitChange(0, name, unit.linked, "", is_crate=is_crate(unit.linked, store)))
    return back, refusals


def _unknown(name: str, path: Path) -> Refusal:
    return Refusal(
        "earlier-patch-unknown",
        f"an earlier patch changed {name}, which {path.name} has not, and what it was built from is not known",
        "Undo the earlier patches (`hotpatch undo 0`), then apply the file.",
        file=name,
    )


def file_commands(path: Path, names: Iterable[str]) -> Commands:
    """Of a patch file: its units are all that is edited, so what one of them takes from another went there."""
    units: Sequence[SourceUnit] = [SourceUnit(Path(name), name, Path(), "") for name in names]
    return Commands((), Origin.PATCH_FILE, path, tuple(units))
