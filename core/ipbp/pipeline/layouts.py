"""The layouts of a C or C++ unit on both sides of an edit. What was read once is kept as long as the engine lives: the
new side of one patch is the old side of the next."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.elffile import ELFFile

from ipbp.build.debug_sections import sections_of
from ipbp.formats.debug_filled import filled
from ipbp.formats.debug_layouts import layouts
from ipbp.graph.image import LoadedImage
from ipbp.graph.layouts import UnitTypes
from ipbp.graph.model import LinkGraph

_NEEDED = (".debug_info", ".debug_types", ".debug_abbrev", ".debug_str", ".debug_line_str", ".debug_str_offsets")
_KEPT = 64
_kept: OrderedDict[object, UnitTypes] = OrderedDict()


def types_of_object(graph: LinkGraph) -> UnitTypes:
    """The types of a unit's object. Errors: `debug-information-malformed`."""
    sections: dict[str, bytes] = {}
    for section in graph.side:
        if section.name in _NEEDED:
            # Each type unit is a section of its own, in a COMDAT group (DWARF 5, E.2).
            sections[section.name] = sections.get(section.name, b"") + filled(graph, section)
    digest = hashlib.sha256()
    for name, content in sections.items():
        digest.update(name.encode() + len(content).to_bytes(8, "little") + content)
    return _once(digest.digest(), lambda: layouts([sections], graph.path))


def types_of_image(image: LoadedImage, source: str) -> UnitTypes:
    """The types of those units of a loaded image whose sources have the base name `source`."""
    path = image.debug_file or image.file
    state = os.stat(path)

    def read() -> UnitTypes:
        with open(path, "rb") as file:
            debug = sections_of(ELFFile(file))
            found = ((f".{name}", getattr(debug, f"{name[1:]}_sec")) for name in _NEEDED)
            sections = {name[1:]: section.stream.getvalue() for name, section in found if section is not None}
        return layouts([sections], path, lambda name: Path(name).name == source)

    return _once((path, state.st_mtime_ns, state.st_ino, source), read)


def _once(key: object, read: Callable[[], UnitTypes]) -> UnitTypes:
    if key not in _kept:
        _kept[key] = read()
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def file_names(content: bytes) -> Iterator[tuple[int, str]]:
    """The numbers and base names of the files that an object's entries are declared in; none where its line table
    cannot be read."""
    try:
        for cu in ELFFile(BytesIO(content)).get_dwarf_info(follow_links=False).iter_CUs():
            program = cu.dwarfinfo.line_program_for_CU(cu)
            if program is not None:
                first = 0 if program["version"] >= 5 else 1  # DWARF 5, 6.2.4
                for number, entry in enumerate(program["file_entry"], first):
                    yield number, os.path.basename(os.fsdecode(entry.name))
                return
    except (ELFError, DWARFError, KeyError, ValueError, AssertionError, IndexError):
        return
