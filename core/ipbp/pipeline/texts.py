"""Of each source that a patch compiled: its text before and after, for whoever is to show code of either.

Copies lie beside the journal, by what they contain, and go with it. What an image was compiled from is also noted
there when it is seen before an edit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from ipbp.build.notes import write_whole
from ipbp.build.snapshot import Snapshot
from ipbp.build.store import Store
from ipbp.build.texts import Origin, is_projects, keep_text, line_tables, sum_of
from ipbp.formats.elf_file import SHF_COMPRESSED
from ipbp.formats.elf_linked import let_go
from ipbp.formats.elf_module import LoadedModule
from ipbp.graph.model import LinkGraph
from ipbp.kept import Kept
from ipbp.pipeline.edited import Built
from ipbp.pipeline.judge import Judged
from ipbp.pipeline.request import Request
from ipbp.protocol import Text

_FOLDER = "sources"
_NOTE = "as-built.json"
_PIECE = 1 << 20
_asked: Kept[tuple[Path, str, int], tuple[str, str]] = Kept(4096)
"""By the program's folder, the source and when the image was made."""


def edited_texts(changed: Sequence[Judged], built: Iterable[Built], request: Request, store: Store) -> tuple[Text, ...]:
    """The sources whose text is another one now than when the code was compiled that these units replace. Copies of
    both are in the journal's folder then."""
    origins = {row.module.key: _origin(row.module, row.mtime_ns, request.folder) for row in built}
    snapshot = Snapshot()
    found: dict[str, Text] = {}
    for unit in changed:
        origin = origins.get(unit.edited.image.key)
        known = request.record.units(unit.edited.image.key).get(unit.edited.name)
        before = known.dependencies if known is not None else {}
        for path, digest in unit.edited.dependencies.items():
            if not digest or path in found or not is_projects(path):
                continue
            is_kept = keep_text(path, digest, store)
            if before.get(path) == digest:
                continue
            if before.get(path):
                old, said = before[path] if store.keep(before[path]) else "", ""
            elif origin is None or origin.is_unedited(path, snapshot):
                continue
            else:
                old, said = text_before(path, origin, unit.edited.new, request.folder, store)
            found[path] = Text(path, old, digest if is_kept else "", said)
    _copy({digest for row in found.values() for digest in (row.before, row.after) if digest}, request.folder, store)
    return tuple(found.values())


def text_before(path: str, origin: Origin, new: LinkGraph, folder: Path, store: Store) -> tuple[str, str]:
    """`Origin.text`. What git has of a file is asked once for each program: what is committed later is what was edited
    since."""
    key = folder, path, origin.made_ns
    known = _asked.get(key)
    if known is None or (known[0] and not store.keep(known[0])):
        known = origin.text(path, _is_summed(path, new), store)
        _asked.put(key, known, 1)
    return known


def note_as_built(files: Mapping[str, Built], folder: Path, store: Store) -> None:
    """Keep those of these sources that nobody has edited since the image was built: path -> the image that it is of."""
    note, snapshot = _noted(folder), Snapshot()
    origins: dict[str, Origin] = {}
    for path, row in files.items():
        key = row.module.key
        origin = origins.get(key) or origins.setdefault(key, _origin(row.module, row.mtime_ns, folder))
        if path not in note and origin.is_unedited(path, snapshot) and keep_text(path, snapshot.digest(path), store):
            note[path] = snapshot.digest(path)
    write_whole(_place(folder) / _NOTE, json.dumps(note))


def kept_text(digest: str, folder: Path) -> str | None:
    """A text that a patch keeps."""
    try:
        return (_place(folder) / digest).read_text(errors="replace") if digest else None
    except OSError:
        return None


def kept_beside(folder: Path, digest: str) -> Path:
    """Where the journal in `folder` keeps a text."""
    return _place(folder) / digest


def _origin(module: LoadedModule, made_ns: int, folder: Path) -> Origin:
    unmapped = cache(lambda: line_tables(Path(module.debug_file or module.mapped.path)))

    def holds(digest: bytes) -> bool:
        section = module.file.section(".debug_line")
        if section is None or section.flags & SHF_COMPRESSED:
            return digest in unmapped()
        return _is_in(module.file.content, section.offset, section.offset + section.size, digest)

    return Origin(made_ns, holds, _noted(folder))


def _is_in(content: memoryview, start: int, end: int, wanted: bytes) -> bool:
    """Whether these bytes are in a part of a mapped file, of which no more than a piece comes into our memory."""
    for piece in range(start, end, _PIECE):
        found = wanted in bytes(content[piece : min(piece + _PIECE + len(wanted) - 1, end)])
        let_go(content, piece, piece + _PIECE)
        if found:
            return True
    return False


def _is_summed(path: str, graph: LinkGraph) -> bool:
    try:
        content = Path(path).read_bytes()
    except OSError:
        return False
    return any(sum_of(content) in bytes(row.content) for row in graph.side if row.name == ".debug_line")


def _noted(folder: Path) -> dict[str, str]:
    try:
        note: dict[str, str] = json.loads((_place(folder) / _NOTE).read_bytes())
    except FileNotFoundError:
        return {}
    return note


def _copy(digests: Iterable[str], folder: Path, store: Store) -> None:
    for digest in digests:
        place = _place(folder) / digest
        if not place.exists():
            write_whole(place, store.get(digest).read_bytes())
            os.utime(place, (1, 1))  # gdb warns of a source that is newer than its program; lldb takes 0 for no file


def _place(folder: Path) -> Path:
    place = folder / _FOLDER
    place.mkdir(mode=0o700, exist_ok=True)
    return place
