"""Precompiled headers, which gcc takes in the place of the text, even when the text was edited since.

What was precompiled stands in no list of dependencies either. So a unit that may use one is compiled and listed
without: gcc takes a precompiled header only before the first token of the unit (GCC manual, "Precompiled Headers"),
and a small header of ours comes first. clang lists what was precompiled, but compares sizes and time stamps, and
refuses one of a header that was edited; so it is given the plain header, where that is known.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ipbp.build.options import Argument
from ipbp.build.places import cache_folder
from ipbp.build.snapshot import MISSING, Snapshot

_TOKEN = "typedef int ipbp_first_token;\n"
_FOLDERS = frozenset({"-I", "-iquote", "-isystem", "-idirafter"})
_SUFFIXES = (".pch", ".gch")
QUIET = "-Wno-invalid-pch"
"""It is meant."""


def may_use_precompiled(rows: Sequence[Argument], directory: Path, source: Path, snapshot: Snapshot) -> bool:
    """Whether a precompiled header of gcc's may be found for a unit of these arguments."""
    here = str(directory)
    for row in rows:
        if row.name == "-include" and row.value is not None and (directory / f"{row.value}.gch").exists():
            return True
    folders = dict.fromkeys((os.path.dirname(source), here))
    folders.update(dict.fromkeys(os.path.join(here, row.value) for row in rows if row.name in _FOLDERS and row.value))
    return any(_has_precompiled(folder, snapshot) for folder in folders)


def first_header() -> Path:
    """A header that consists of one token."""
    path = cache_folder("first") / "first.h"
    if not path.is_file():
        path.write_text(_TOKEN)
        os.utime(path, (0, 0))  # older than every object
    return path


def without_precompiled(rows: Sequence[Argument], directory: Path, is_clang: bool) -> list[Argument]:
    """The arguments with plain headers in the place of those that clang has precompiled, where these stand beside them:
    `-include-pch FILE`, the same behind `-Xclang` (as CMake writes it, before the header itself), and `-include FILE`,
    for which clang's driver takes `FILE.pch` when there is one. Its compiler proper, to which `-Xclang` leads, does
    not."""
    kept: list[Argument] = []
    found = False
    for row in _with_whole_pairs(rows):
        header = _header_of(row, directory) if row.name == "-include-pch" else None
        if header is not None:
            found = True
            kept += _plainly(header)
        elif row.name == "-include" and row.value is not None and is_clang:
            found |= any((directory / f"{row.value}{suffix}").exists() for suffix in _SUFFIXES)
            kept.append(row)
        else:
            kept.append(row)
    if not found:
        return list(rows)
    # All in the order in which they stood: the driver's own would come before those behind `-Xclang`.
    plain = [part for row in kept for part in (_plainly(row.value) if row.name == "-include" and row.value else [row])]
    return _each_once(plain)


def _with_whole_pairs(rows: Sequence[Argument]) -> list[Argument]:
    """`-Xclang -include-pch -Xclang FILE` as one argument."""
    found: list[Argument] = []
    for row in rows:
        if row.name == "-Xclang" and found and found[-1].words == ("-Xclang", "-include-pch"):
            found[-1] = Argument("-include-pch", row.value, (*found[-1].words, *row.words))
        else:
            found.append(row)
    return found


def _header_of(row: Argument, directory: Path) -> str | None:
    """The header that was precompiled, where it is the file without the suffix."""
    name, suffix = os.path.splitext(row.value or "")
    return name if suffix in _SUFFIXES and (directory / name).is_file() else None


def _plainly(header: str) -> list[Argument]:
    return [Argument("-Xclang", word, ("-Xclang", word)) for word in ("-include", header)]


def _each_once(rows: Sequence[Argument]) -> list[Argument]:
    """Without the second of two times the same header in a row, which CMake writes."""
    kept: list[Argument] = []
    for row in rows:
        kept.append(row)
        if len(kept) >= 4 and kept[-4:-2] == kept[-2:] and kept[-2].words == ("-Xclang", "-include"):
            del kept[-2:]
    return kept


def _has_precompiled(folder: str, snapshot: Snapshot) -> bool:
    modified_ns = snapshot.modified_ns(folder)
    if modified_ns == MISSING:
        return False
    try:
        return _lists_precompiled(folder, modified_ns)
    except OSError:
        return False


@lru_cache(maxsize=4096)
def _lists_precompiled(folder: str, _mtime_ns: int) -> bool:
    """`_mtime_ns`: of the folder, which another file in it changes."""
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(".gch") for entry in entries)
