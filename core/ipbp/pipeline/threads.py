"""New thread-local variables of a patch, and those of the patches before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ipbp.errors import Refusal
from ipbp.formats.elf_linked import PT_INTERP
from ipbp.formats.elf_patch import PatchFile
from ipbp.formats.elf_process import LoadedProcess
from ipbp.formats.elf_thread_library import write_thread_library
from ipbp.graph.image import MemoryReader
from ipbp.graph.layout import Layout, LinkedImage, ThreadImage
from ipbp.graph.model import BlockKind
from ipbp.graph.rows import is_one_of
from ipbp.graph.threads import ThreadBlock
from ipbp.graph.unit import Unit
from ipbp.pipeline.loader import Loader
from ipbp.pipeline.record import Record
from ipbp.protocol import Load

_THREAD_LOCAL = (BlockKind.TLS_DATA, BlockKind.TLS_BSS)


def thread_load(
    image: ThreadImage, layout: Layout, linked: LinkedImage, loader: Loader, file: Path, patch: PatchFile, machine: str
) -> Load:
    """The step that opens the library with these initial values, which is written here. `file`: where the patch is.
    Errors: OSError."""
    start = image.start - layout.written("r")[0]
    values = linked.segments["r"][start : start + image.size]
    cell = write_thread_library(Path(image.library), values, image.alignment, machine)
    load = loader.load(image.library, image.library_at, cell=cell, late=linked.late)
    return replace(load, patch=str(file), shown=tuple((row.address, row.width, row.addend) for row in patch.late))


def patched_blocks(record: Record, read: MemoryReader) -> list[ThreadBlock]:
    """The blocks of earlier patches, each with the offset that the loader gave it."""
    cells = read([(cell, 8) for _start, _size, cell in record.threads]) if record.threads else []
    return [
        ThreadBlock(start, size, int.from_bytes(content, "little", signed=True), alignment=min(start & -start, 64))
        for (start, size, _cell), content in zip(record.threads, cells, strict=True)
        if content is not None
    ]


def keeps_room(process: LoadedProcess) -> bool:
    """Whether the loader has room for new variables in the blocks of threads that run, which glibc's has. musl refuses
    a library that needs a fixed place in them."""
    return any(module.dynamic.definition("_rtld_global") is not None for module in process.modules)


def new_thread_locals(units: Sequence[Unit], process: LoadedProcess) -> list[Refusal]:
    """A refusal for each new thread-local variable of a program whose threads nobody can give room."""
    why = "has not loaded what opens libraries (dlopen)"
    if not any(module.file.segment(PT_INTERP) for module in process.modules):
        why = "has no dynamic loader"
    elif not keeps_room(process):
        why = "has a dynamic loader that keeps no room for more of them (musl)"
    found = []
    for unit in units:
        kinds = unit.graph.blocks.kind[unit.carried]
        for block in unit.carried[is_one_of(kinds, _THREAD_LOCAL)].tolist():
            found.append(_no_room(unit.graph.block_name(block), unit.name, why))
    return found


def _no_room(name: str, file: str, why: str) -> Refusal:
    return Refusal(
        "new-thread-local",
        f"'{name}' is a new thread-local variable, and the program {why}, so its threads cannot be given room",
        "Make it an ordinary variable for now, or restart the program.",
        name,
        file,
    )
