"""What a program was built from, file by file: a save of one of these may be an edit of what runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ipbp.build.saves import Saves
from ipbp.build.store import user_store
from ipbp.build.watched import watched_files
from ipbp.errors import IpbpError
from ipbp.graph.image import MemoryReader
from ipbp.host import procfs
from ipbp.pipeline.edited import Built, buildable
from ipbp.pipeline.process import process_of
from ipbp.pipeline.request import Request
from ipbp.pipeline.texts import note_as_built

_LOOK = 1.0  # seconds between two looks at the program


def files_of_program(request: Request, read: MemoryReader) -> set[str]:
    """Absolute paths, of all images that are loaded now; what was not edited yet is kept as it is. Errors: those of
    `buildable` and `watched_files`."""
    found: dict[str, Built] = {}
    for row in buildable(request, process_of(request, read))[0]:
        found.update(dict.fromkeys(watched_files(row.commands, request.record.units(row.module.key)), row))
    note_as_built(found, request.folder, user_store())
    return set(found)


def next_saves(saves: Saves, pid: int, is_wanted: Callable[[], bool]) -> dict[str, Any]:
    """Wait. `saved`: the files that were saved; [] when the program has ended (`is_gone`), when it has other images
    now, for these may bring more files, or when nobody wants to know any more."""
    images = _images(pid)
    looked = time.monotonic()
    is_gone = False

    def is_over() -> bool:
        nonlocal looked, is_gone
        if not is_wanted():
            return True
        if time.monotonic() < looked + _LOOK:
            return False
        looked = time.monotonic()
        now = _images(pid)
        is_gone = not now
        return now != images

    saved = saves.wait(is_over)
    return {"saved": saved, "is_gone": is_gone}


def _images(pid: int) -> frozenset[str]:
    """Files whose code is mapped; none when the process has ended."""
    try:
        return frozenset(region.path for region in procfs.regions(pid) if "x" in region.protection)
    except IpbpError:
        return frozenset()
