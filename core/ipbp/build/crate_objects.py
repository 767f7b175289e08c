"""A crate's objects put into the store: those that were there before are neither read nor copied.

After a one-line edit two hundred objects are what they were, and rustc gives them to its next session as hard links.
A file with the inode, size and time of one that was hashed before is that file.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Container, Sequence
from pathlib import Path

from ipbp.build.codegen_units import CrateObject
from ipbp.build.notes import write_whole
from ipbp.build.store import Store
from ipbp.kept import Kept
from ipbp.members import packed_list

_known_of: Kept[Path, dict[str, str]] = Kept(64)
"""What is known of the objects of the last 64 crates, by the file that says so: of such a mark it stays true."""


def kept_objects(
    rows: Sequence[CrateObject], digests: Path, store: Store, there: Container[str] = frozenset()
) -> bytes:
    """The list of the objects, which are in the store then. `digests`: the file of what is known of this crate's.
    `there`: of objects that were found in the store a moment ago."""
    known = _known(digests)
    found: dict[str, str] = {}
    names = []
    for row in rows:
        mark = _mark(row.path) if row.path is not None else ""
        digest = known.get(mark, "")
        if not digest or not (digest in there or store.keep(digest)):
            digest = store.put(row.read())
            if row.path is not None and _mark(row.path) != mark:
                mark = ""  # it was replaced while it was read
        if mark:
            found[mark] = digest
        names.append((row.name, digest))
    if not found.keys() <= known.keys():
        _write(digests, {**known, **found} if len(known) < 8 * len(rows) else found)
    return packed_list(names)


def _mark(path: str) -> str:
    status = os.stat(path)
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _known(digests: Path) -> dict[str, str]:
    known = _known_of.get(digests)
    if known is None:
        try:
            known = json.loads(digests.read_text())
        except (OSError, ValueError):
            known = {}
        _known_of.replace(digests, known, 1)
    return known


def _write(digests: Path, rows: dict[str, str]) -> None:
    """For the next process; nobody has to wait for that."""
    _known_of.replace(digests, rows, 1)
    threading.Thread(target=_write_quietly, args=(digests, rows), daemon=True).start()


def _write_quietly(digests: Path, rows: dict[str, str]) -> None:
    with contextlib.suppress(OSError):  # on a full disk the next process hashes them once more
        write_whole(digests, json.dumps(rows))
