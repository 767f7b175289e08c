"""Precompiled headers, which gcc takes in the place of the text, even when the text was edited since.

What was precompiled stands in no list of dependencies either. So a unit that may use one is compiled and listed
without: gcc takes a precompiled header only before the first token of the unit (GCC manual, "Precompiled Headers"),
and a small header of ours comes first. clang compares time stamps itself and refuses an old one; of those that CMake
makes, which stand beside the plain header in the command, it is told nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ipbp.build.options import Argument
from ipbp.build.places import cache_folder

_TOKEN = "typedef int ipbp_first_token;\n"
_FOLDERS = frozenset({"-I", "-iquote", "-isystem", "-idirafter"})
QUIET = "-Wno-invalid-pch"
"""It is meant."""


def may_use_precompiled(rows: Sequence[Argument], directory: Path, source: Path) -> bool:
    """Whether a precompiled header of gcc's may be found for a unit of these arguments."""
    for row in rows:
        if row.name == "-include" and row.value is not None and (directory / f"{row.value}.gch").exists():
            return True
    folders = [source.parent, directory]
    folders += [directory / row.value for row in rows if row.name in _FOLDERS and row.value is not None]
    return any(_has_precompiled(folder) for folder in folders)


def first_header() -> Path:
    """A header that consists of one token."""
    path = cache_folder("first") / "first.h"
    if not path.is_file():
        path.write_text(_TOKEN)
        os.utime(path, (0, 0))  # older than every object
    return path


def without_precompiled(rows: Sequence[Argument]) -> list[Argument]:
    """The arguments without `-Xclang -include-pch -Xclang FILE`, which CMake writes before the header itself."""
    kept: list[Argument] = []
    skips = False
    for row in rows:
        if row.name == "-Xclang" and (row.value == "-include-pch" or skips):
            skips = not skips
            continue
        kept.append(row)
    return kept


def _has_precompiled(folder: Path) -> bool:
    try:
        return _lists_precompiled(str(folder), os.stat(folder).st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=4096)
def _lists_precompiled(folder: str, _mtime_ns: int) -> bool:
    """`_mtime_ns`: of the folder, which another file in it changes."""
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(".gch") for entry in entries)
