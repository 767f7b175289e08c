"""What a process runs patched, as a patch file: all of its patches together, for other processes of the same build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipbp.build.compile import Tell
from ipbp.build.store import Store, user_store
from ipbp.errors import IpbpError, Refusal, raise_all
from ipbp.formats.elf_image import read_image
from ipbp.graph.image import MemoryReader
from ipbp.patch_file import UnitChange, described
from ipbp.pipeline.patch_making import BuiltImage, make_patch, write_patch_file
from ipbp.pipeline.patch_units import is_crate
from ipbp.pipeline.process import process_of
from ipbp.pipeline.record import UnitRecord
from ipbp.pipeline.request import Request


def save_patched(request: Request, read: MemoryReader, file: Path, tell: Tell) -> dict[str, Any]:
    """Write the file; what is in it, for the user. Nothing is asked of the process but what it has loaded.

    Errors: `nothing-to-save`; `Refused`, with `moved-definitions` and those of `make_patch`; those of
    `write_patch_file`.
    """
    store = user_store()
    process = process_of(request, read)
    images: list[BuiltImage] = []
    refusals: list[Refusal] = []
    for key, units in request.record.images.items():
        module = process.module(key)
        if module is None or not any(unit.object for unit in units.values()):
            continue
        refusals += [_moved(name) for name, unit in units.items() if not unit.object]
        rows = [_change(name, unit, store) for name, unit in units.items() if unit.object]
        images.append(BuiltImage(read_image(module.opened_as, 0, module.mapped.path), rows))
    raise_all(refusals)
    tell("comparing with the build")
    patch = make_patch(images, request.allow_layout, store, tell, keep_all=True) if images else None
    if patch is None:
        raise IpbpError("nothing-to-save", "no patch is applied that a file could hold", "Edit, and `hotpatch` first.")
    return {"file": str(file), **described(write_patch_file(patch, file))}


def _change(name: str, unit: UnitRecord, store: Store) -> UnitChange:
    dependencies: Mapping[str, str] = unit.dependencies
    return UnitChange(
        image=0,
        name=name,
        new=unit.object,
        old=unit.linked if unit.linked and store.has(unit.linked) else "",
        is_newcomer=unit.linked is None,
        is_crate=is_crate(unit.object, store),
        is_optimised=unit.is_optimised,
        dependencies=dependencies,
        flags=unit.flags,
    )


def _moved(name: str) -> Refusal:
    return Refusal(
        "moved-definitions",
        f"a patch moved what {name} had to another file, or took a part of it out of an archive, and a patch file "
        "cannot tell of that",
        "Make the file of two builds: `ipbp build-patch OLD NEW -o FILE`.",
        file=name,
    )
