"""Which loaded image a translation unit is a part of.

The debug information of the images names their units; one source may be in several of them. Where an image has none,
its symbols have to tell. System libraries without debug information are nobody's edit and are not looked at, so that
a program with a hundred of them costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ipbp.build.producer import units_at
from ipbp.errors import Refusal, Refused
from ipbp.formats.elf_debug_file import has_debug_information
from ipbp.formats.elf_mapped import VDSO
from ipbp.formats.elf_module import LoadedModule
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import LoadedImage, MemoryReader
from ipbp.graph.model import Binding, BlockKind, LinkGraph, SymbolType
from ipbp.stages.attest import attest

_SYSTEM = ("/usr/lib", "/lib", "/usr/lib64", "/lib64", "/usr/lib32", "/lib32")


def patchable(process: LoadedProcess) -> Iterator[LoadedModule]:
    """The modules whose sources may be somebody's to edit, the executable first."""
    for module in process.modules:
        if module.is_executable or (module.mapped.path != VDSO and module.opened_as and _is_somebodys(module)):
            yield module


def _is_somebodys(module: LoadedModule) -> bool:
    if any(Path(module.mapped.path).is_relative_to(folder) for folder in _SYSTEM):
        return has_debug_information(module.file)
    return True


def images_by_symbols(graph: LinkGraph, images: Sequence[LoadedImage], name: str) -> list[LoadedImage]:
    """The image that defines most of the graph's global functions; several loads of one file are all it. [] when none
    has any of them. Errors: `Refused` with `image-ambiguous`."""
    score = {image.key: common_functions(graph, image) for image in images}
    most = max(score.values(), default=0)
    best = [image for image in images if score[image.key] == most and most > 0]
    if len({image.build_id or image.inode for image in best}) > 1:
        raise Refused([_ambiguous(name, best)])
    return best


def has_undescribed(image: LoadedImage, graph: LinkGraph) -> bool:
    """Whether the image has one of these functions where none of its described units has code. (Every program has a
    `main`; another program's is not this one's. Nor does an inline function tell anything, which many files have.)"""
    table = image.symbols
    rows = [row for name in _functions(graph, (Binding.GLOBAL,)) for row in table.by_name.get(name, ())]
    places = [int(table.address[row]) - image.bias for row in rows if table.binding[row] != Binding.LOCAL]
    return bool(places) and not all(units_at(Path(image.debug_file), places).values())


def images_by_memory(old: LinkGraph, process: LoadedProcess, read: MemoryReader, name: str) -> list[LoadedImage]:
    """The images in whose memory the old object's code is; where it is in none, those that its symbols tell, at last
    the executable. Errors: `Refused` with `image-ambiguous`."""
    images = [module.image for module in patchable(process)]
    if not any(common_functions(old, image) for image in images):
        images = [module.image for module in process.modules if module.mapped.path != VDSO]
    proved = []
    for image in images:
        found = attest(old, image, read) if common_functions(old, image) else None
        if found is not None and found.proved.any() and not found.mismatched:
            proved.append(image)
    return proved or images_by_symbols(old, images, name) or [process.executable_image()]


def common_functions(graph: LinkGraph, image: LoadedImage) -> int:
    """How many of the functions that the graph gives to other files the image has."""
    return sum(name in image.symbols.by_name for name in _functions(graph))


def _functions(graph: LinkGraph, bindings: Sequence[Binding] = (Binding.GLOBAL, Binding.WEAK)) -> list[str]:
    """Names that other files can see. Those of hand-written assembly are often without a type."""
    symbols = graph.symbols
    rows = np.flatnonzero((symbols.block >= 0) & np.isin(symbols.binding, bindings))
    is_code = graph.blocks.kind[symbols.block[rows]] == BlockKind.CODE
    is_code &= np.isin(symbols.type[rows], (SymbolType.FUNCTION, SymbolType.NONE))
    return [symbols.name[row] for row in rows[is_code].tolist()]


def _ambiguous(name: str, images: Sequence[LoadedImage]) -> Refusal:
    paths = ", ".join(image.path for image in images)
    return Refusal(
        "image-ambiguous",
        f"{name} may be a part of any of {paths}",
        "Build with -g, so that the debug information tells which files are in which.",
        file=name,
    )
