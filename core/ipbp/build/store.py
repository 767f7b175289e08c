"""Objects by what they contain: the object that runs now must still be there when the next edit is compared with it.

The build tree cannot be relied on for that, it is rebuilt under our feet. A file is named by the sha256 of its
content, so the same object compiled twice is kept once, and an edit back to the original text finds the original.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ipbp.build.places import cache_folder
from ipbp.errors import IpbpError


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of objects. `root` is on one file system, so that a rename is atomic (rename(2))."""

    root: Path

    def put(self, content: Path | bytes) -> str:
        """Keep a file's content; its digest. Two processes may put the same content at once."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        place = self.place(digest)
        if self._is_intact(place, digest) and self.keep(digest):
            return digest
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.root, prefix="put-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(temporary, place)
        except BaseException:
            os.unlink(temporary)
            raise
        return digest

    def keep(self, digest: str) -> bool:
        """Whether there is an object of this name, which then counts as used now. Its content is not looked at."""
        try:
            os.utime(f"{self.root}/{digest[:2]}/{digest}.o")
        except FileNotFoundError:
            return False
        return True

    def get(self, digest: str) -> Path:
        """The file with this content. `store-object-missing` when it was pruned, or is not what its name says."""
        place = self.place(digest)
        if not self._is_intact(place, digest):
            raise IpbpError(
                "store-object-missing",
                f"the object {digest[:12]}, which runs in the process, is no longer in {self.root}",
                "Restart the program from a fresh build; ipbp's cache folder was emptied or damaged.",
            )
        return place

    def has(self, digest: str) -> bool:
        return self._is_intact(self.place(digest), digest)

    def prune(self, keep: Collection[str], max_bytes: int, max_age_seconds: float) -> list[str]:
        """Remove objects that are older than the age, then the least recently used ones until the size fits;
        digests of what was removed. Objects in `keep` stay, whatever the limits say."""
        rows = []
        for place in self.root.glob("??/*.o"):
            try:
                status = place.stat()
            except FileNotFoundError:
                continue  # another process pruned it first
            rows.append((status.st_mtime, status.st_size, place))
        rows.sort()
        total = sum(size for _, size, _ in rows)
        oldest = time.time() - max_age_seconds
        removed = []
        for used, size, place in rows:
            if place.stem in keep or (used >= oldest and total <= max_bytes):
                continue
            place.unlink(missing_ok=True)
            total -= size
            removed.append(place.stem)
        return removed

    def place(self, digest: str) -> Path:
        """Where the file with this content is, or would be: of one that was put just now."""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ValueError(f"not a sha256 digest: {digest!r}")
        return self.root / digest[:2] / f"{digest}.o"

    def _is_intact(self, place: Path, digest: str) -> bool:
        try:
            return hashlib.sha256(place.read_bytes()).hexdigest() == digest
        except FileNotFoundError:
            return False


def user_store() -> Store:
    """The store of the user who runs ipbp."""
    return Store(cache_folder("objects"))
