"""Which edited libraries the crates that use them need not be compiled again for.

rustc binds a crate to the very build of what it uses, so cargo compiles all of them after any edit. What they would
be made of is the same when the edit stays inside functions that no other crate has a copy of (`rust_text`). To say so
takes the text as it was when the running code was made: from an earlier command of ours, or from the project's git,
and then only if rustc's own hash of it is in the metadata of the user's build (rustc_span, `SourceFileHash`).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.notes import write_whole
from ipbp.build.rust_text import noticed_outside
from ipbp.build.rustc_recorder import read_options
from ipbp.build.snapshot import Snapshot
from ipbp.build.store import Store
from ipbp.errors import IpbpError

_OFF = ("off", "no", "n", "false")
# A repository's own configuration names programs: one that git asks whenever it reads the index (git-config(1),
# core.fsmonitor), and, where objects are missing, one that fetches them (git(1), GIT_ALLOW_PROTOCOL).
_NO_PROGRAMS = ("-c", "core.fsmonitor=false", "--no-replace-objects")
_NO_TRANSPORT = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
_UNSTABLE = re.compile(r"#\s*!\s*\[[^\]]*\bfeature\s*\(")
_NEAR = 1 << 16
"""Bytes of metadata in which the next file of a crate is looked for at first."""
_INCLUDED = re.compile(r"\binclude(?:_str|_bytes)?\s*!")


def is_unnoticed(
    row: CrateCommand,
    files: Iterable[str],
    known: Mapping[str, str] | None,
    image_mtime_ns: int,
    snapshot: Snapshot,
    store: Store,
    texts: Path,
) -> bool:
    """Whether no crate that uses this library can notice what is different in its sources now from what runs. `files`:
    of which it was made. `known`: path -> sha256 of what it was made from when it was patched last, else None. `texts`:
    the note of `remember`."""
    if row.kind not in ("lib", "rlib") or not _keeps_bodies(row):
        return False
    paths = list(dict.fromkeys([row.source, *files]))
    before = _Recorded(known, store) if known is not None else _Built(row, image_mtime_ns, store, texts)
    changed = [path for path in paths if before.is_other(path, snapshot)]
    macros: set[str] = set()
    for path in changed:
        old = before.text(path) if path.endswith(".rs") else None
        if old is None:
            return False
        noticed, used = noticed_outside(old, _decoded(Path(path).read_bytes()))
        if noticed:
            return False
        macros |= used
    now = [_decoded(Path(path).read_bytes()) for path in paths if path.endswith(".rs")]
    return not any(_UNSTABLE.search(text) or _INCLUDED.search(text) for text in now) and _are_standard(macros, now)


def is_linked_together(rows: Iterable[CrateCommand]) -> bool:
    """Whether the program is optimised as a whole (`lto`), so that code of one crate is inside another's."""
    for row in rows:
        options = read_options(list(row.arguments))
        if any(value not in _OFF for value in options.get("-C lto", ())) or "-C linker-plugin-lto" in options:
            return True
    return False


def remember(files: Mapping[str, str], store: Store, note: Path) -> None:
    """Keep the texts that a crate was made from, path -> sha256, and in the note which they are: the next edit is
    compared with them."""
    sources = {path: digest for path, digest in files.items() if digest and path.endswith(".rs")}
    for path, digest in sources.items():
        if not store.keep(digest):
            store.put(Path(path).read_bytes())
    write_whole(note, json.dumps(sources))


def _keeps_bodies(row: CrateCommand) -> bool:
    """Whether rustc infers nothing from bodies: it does for optimised builds that are not incremental."""
    options = read_options(list(row.arguments))
    is_plain = all(value == "0" for value in options.get("-C opt-level", ())) and "-O" not in row.arguments
    return ("-C incremental" in options or is_plain) and not any(word.startswith("-Z") for word in row.arguments)


class _Recorded:
    """Sources as the journal knows them."""

    def __init__(self, known: Mapping[str, str], store: Store) -> None:
        self.known, self.store = known, store

    def is_other(self, path: str, snapshot: Snapshot) -> bool:
        return self.known.get(path) != snapshot.digest(path)

    def text(self, path: str) -> str | None:
        try:
            return _decoded(self.store.get(self.known.get(path, "")).read_bytes())
        except (IpbpError, ValueError):
            return None


class _Built:
    """Sources as the user's build found them: rustc's hash tells which text that was."""

    def __init__(self, row: CrateCommand, image_mtime_ns: int, store: Store, note: Path) -> None:
        self._note, self._store = note, store
        self._near = 0
        metadata = Path(row.folder, f"lib{row.stem}.rmeta")
        try:
            is_old = metadata.stat().st_mtime_ns <= image_mtime_ns
            self._metadata = metadata.read_bytes() if is_old else b""
        except OSError:
            self._metadata = b""

    def is_other(self, path: str, snapshot: Snapshot) -> bool:
        try:
            return not self._has(Path(path).read_bytes())
        except OSError:
            return True

    def text(self, path: str) -> str | None:
        candidates = itertools.chain(_of_note(self._note, path, self._store), of_git(Path(path)))
        return next((_decoded(content) for content in candidates if self._has(content)), None)

    def _has(self, content: bytes) -> bool:
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        # rustc writes what it knows of its files one after the other, so that the next is near the last.
        place = self._metadata.find(digest, max(0, self._near - _NEAR), self._near + _NEAR)
        place = self._metadata.find(digest) if place < 0 else place
        self._near = place if place >= 0 else self._near
        return place >= 0


def _of_note(note: Path, path: str, store: Store) -> Iterator[bytes]:
    with contextlib.suppress(OSError, ValueError, KeyError, IpbpError):
        yield store.get(json.loads(note.read_text())[path]).read_bytes()


def of_git(path: Path) -> Iterator[bytes]:
    """What git has of a file: as it is staged, as it was committed last."""
    for revision in (":", "HEAD:"):
        try:
            done = subprocess.run(
                ["git", *_NO_PROGRAMS, "cat-file", "blob", f"{revision}./{path.name}"],
                cwd=path.parent,
                env={**os.environ, **_NO_TRANSPORT},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except OSError:
            return  # there is no git
        if done.returncode == 0:
            yield done.stdout


def _are_standard(macros: set[str], texts: Iterable[str]) -> bool:
    """Whether these names mean the standard library's macros in all of the crate: nothing else of it is called so, and
    no macros are taken over by `macro_use`."""
    if not macros:
        return True
    other = re.compile(rf"\b(?:{'|'.join(sorted(macros))})\b(?!\s*!)|\bmacro_use\b")
    return not any(other.search(text) for text in texts)


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n")
