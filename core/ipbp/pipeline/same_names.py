"""Files of one name in one program, told apart by its debug information.

A linked symbol table knows the base names of source files only, so the static `count` of `one/util.c` and that of
`two/util.c` stand under the same name. The debug information says where each unit's code is, and with that which of
the groups of static names is whose.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ipbp.build.producer import places_of, source_units
from ipbp.errors import IpbpError
from ipbp.graph.image import LoadedImage


def told_apart(image: LoadedImage, source: Path, name: str) -> LoadedImage:
    """The image as the unit compiled from `source` sees it: other files that have its base name `name` are nameless.
    The image itself where the name is no one else's, or where the debug information does not tell."""
    files = image.symbols.files
    same = [row for row, file in enumerate(files) if file == name and name]
    if len(same) < 2:
        return image
    own = set(same) & _groups_of(image, source)
    if not own:
        return image
    named = tuple("" if row in same and row not in own else file for row, file in enumerate(files))
    return replace(image, symbols=replace(image.symbols, files=named))


def _groups_of(image: LoadedImage, source: Path) -> set[int]:
    """Rows of `image.symbols.files` with a name in the code, or at a variable, of this source's unit."""
    debug_file, wanted = Path(image.debug_file), os.path.realpath(source)
    try:
        units = [unit for unit in source_units(debug_file) if os.path.realpath(unit.source) == wanted]
        places = places_of(debug_file, units) if units else []
    except IpbpError:  # no debug information that can be read tells nothing; whoever needs it says so
        return set()
    table, found = image.symbols, set[int]()
    for start, end in places:
        rows = slice(*np.searchsorted(table.address, (start + image.bias, end + image.bias)).tolist())
        found.update(table.file[rows].tolist())
    return found
