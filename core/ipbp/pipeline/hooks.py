"""The program's own functions that want to know of patches, and the description that they are given.

What they are called and how the description is laid out is said in docs/ipbp.h, for programs to include.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ipbp.formats.coff_process import WindowsProcess
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import SymbolType
from ipbp.pipeline.extra import extra_room
from ipbp.pipeline.loader import quiet_for
from ipbp.pipeline.record import Record
from ipbp.pipeline.request import Request
from ipbp.protocol import FunctionChange, Hook, PatchPlan
from ipbp.stages.arena import Arena

BEFORE, AFTER = "ipbp_before_patch", "ipbp_after_patch"
_VERSION = 1
_HEAD = struct.Struct("<IIIIQQQQQ")  # struct ipbp_patch
_ROW = struct.Struct("<QQQQQ")  # struct ipbp_function
_KIND = {"changed": 0, "new": 1, "removed": 2}


def with_hooks(
    plan: PatchPlan,
    request: Request,
    process: LoadedProcess,
    images: Sequence[LoadedImage],
    arenas: Sequence[Arena],
    types: Sequence[str],
) -> PatchPlan:
    """The plan, which tells the program's hooks of itself, if there are any. `images`: the plan's, in order; `arenas`:
    with what the plan takes so far; `types`: whose layout changed. Errors: `no-near-memory`; OSError."""
    executable = process.executable_image()
    found = list(_hooks(executable, images, request.record))
    if not found:
        return plan
    if isinstance(process, WindowsProcess):
        return replace(plan, notes=(*plan.notes, "the program's hooks are not called: ipbp does not on Windows so far"))
    size = len(_description(plan, types, 0)[0])
    room = extra_room(arenas, request.regions, executable, size)
    content, undone = _description(plan, types, room.start)
    file = request.folder / f"patch-{plan.number}-description.elf"
    segments, taken = room.write(file, content)
    hooks = tuple(Hook(name, address, room.start, undone, name == BEFORE, image) for name, address, image in found)
    return replace(
        plan,
        files=(*plan.files, str(file)),
        allocations=(*plan.allocations, *room.allocations),
        segments=(*plan.segments, *(replace(row, file=len(plan.files)) for row in segments)),
        arenas=tuple(arena.to_json() for arena in taken),
        reclaimable=(*plan.reclaimable, (room.start, room.start + size)) if plan.reclaimable else (),
        quiet=quiet_for(process, plan.calls, plan.loads, runs_more=True),
        hooks=hooks,
    )


def _hooks(executable: LoadedImage, images: Sequence[LoadedImage], record: Record) -> Iterator[tuple[str, int, int]]:
    """Name, address and row of the image (-1 for the executable) of each hook: one of each name and image."""
    for name in (BEFORE, AFTER):
        yield from ((name, address, -1) for address in _places(name, executable, record))
        for row, image in enumerate(images):
            if image.key != executable.key:
                yield from ((name, address, row) for address in _places(name, image, record))


def _places(name: str, image: LoadedImage, record: Record) -> set[int]:
    # Nothing where several static functions have that name.
    patched = {unit.address[name] for unit in record.units(image.key).values() if name in unit.address}
    table = image.symbols
    rows = [row for row in table.by_name.get(name, ()) if table.type[row] == SymbolType.FUNCTION]
    found = {*patched, *(int(table.address[row]) for row in rows)}
    return found if len(found) == 1 else set()


def _description(plan: PatchPlan, types: Sequence[str], start: int) -> tuple[bytes, int]:
    """Two `struct ipbp_patch` for the load address `start`, with all that they point to, and the address of the second
    one, for the undo."""
    texts = bytearray()
    rows_at = start + 2 * _HEAD.size
    types_at = rows_at + len(plan.functions) * _ROW.size
    texts_at = types_at + len(types) * 8

    def text(value: str) -> int:
        at = texts_at + len(texts)
        texts.extend(value.encode("utf-8", "surrogateescape") + b"\0")
        return at

    rows = [
        _ROW.pack(text(row.name), text(row.file), row.entry, row.address, _KIND[row.status]) for row in plan.functions
    ]
    names = [struct.pack("<Q", text(name)) for name in types]
    summary = text(_summary(plan.functions))
    heads = [
        _HEAD.pack(_VERSION, plan.number, is_undo, 0, len(rows), rows_at, len(names), types_at, summary)
        for is_undo in (0, 1)
    ]
    return b"".join([*heads, *rows, *names, bytes(texts)]), start + _HEAD.size


def _summary(functions: Sequence[FunctionChange]) -> str:
    counts = ((sum(row.status == word for row in functions), word) for word in _KIND)
    return ", ".join(f"{count} {word}" for count, word in counts if count)
