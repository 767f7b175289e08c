"""What the file system says at one moment, every file asked once.

A thousand translation units name the same few hundred headers: each is looked at once for a whole `hotpatch`, and
all decisions rest on the same answer. Paths are plain strings here, absolute and normalised: they are keys of
large tables and of the journal. Bytes that are no UTF-8 travel as lone surrogates (PEP 383).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ipbp.kept import file_state

_PART = 1 << 16  # bytes that are read at once
MISSING = -1
"""Modification time and file system of a file that is not there, or cannot be reached."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """`digest`: of a file, when its status was `state`: what is written to it later changes that."""

    state: tuple[int, ...]
    digest: str


_NOTHING: Mapping[str, Hashed] = {}


class Snapshot:
    """A memory of answers; make a new one for every look at the world. `hashed`: of files that were hashed before; it
    counts for those that have not changed since."""

    def __init__(self, hashed: Mapping[str, Hashed] = _NOTHING) -> None:
        self._hashed = hashed
        self._states: dict[str, tuple[int, int]] = {}  # modification time, device
        self._digests: dict[str, str] = {}
        self._located: dict[str, dict[str, str]] = {}

    def locate(self, directory: str, name: str) -> str:
        """The absolute, normalised path that `name` means in `directory`."""
        names = self._located.setdefault(directory, {})
        path = names.get(name)
        if path is None:
            path = names[name] = os.path.normpath(os.path.join(directory, name))
        return path

    def modified_ns(self, path: str) -> int:
        """Modification time in nanoseconds since the epoch, or MISSING."""
        return self._looked_at(path)[0]

    def device(self, path: str) -> int:
        """Number of the file system that it is on, or MISSING."""
        return self._looked_at(path)[1]

    def _looked_at(self, path: str) -> tuple[int, int]:
        state = self._states.get(path)
        if state is None:
            state = self._states[path] = _time_and_device(path)
        return state

    def digest(self, path: str) -> str:
        """sha256 of the content, in hex; "" for what is no readable file, which equals no content."""
        digest = self._digests.get(path)
        if digest is None:
            known = self._hashed.get(path)
            digest = known.digest if known is not None and known.state == _state(path) else digest_of(path)
            self._digests[path] = digest
        return digest


def digest_of(path: str) -> str:
    """sha256 of a file as it is now; "" when it is no readable file. A unit has a hundred headers, most of them small:
    Python's own reader would take longer for each than the kernel and the hash together."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    found = hashlib.sha256()
    try:
        while part := os.read(descriptor, _PART):
            found.update(part)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return found.hexdigest()


def hash_files(paths: Iterable[str]) -> dict[str, Hashed]:
    """The digests of these files, for a `Snapshot`; without those that are written to at this moment."""
    found = {}
    for path in paths:
        state = _state(path)
        digest = digest_of(path)
        if digest and state == _state(path):
            found[path] = Hashed(state, digest)
    return found


def _state(path: str) -> tuple[int, ...]:
    # The time of the last change (ctime) can be set by nobody (inode(7)).
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (*file_state(found), found.st_ctime_ns)


def _time_and_device(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return MISSING, MISSING
    return found.st_mtime_ns, found.st_dev
