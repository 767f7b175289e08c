"""Sources as they were when the running code was compiled: what a debugger is to show of old code.

By the time a patch is made its sources have been edited, so the text before is had from where it was kept: our own
copies, or the project's git. Which text was compiled is known where the compiler wrote a checksum of each source into
the debug information (MD5: DWARF 5, 6.2.4.1; clang and rustc do, gcc does not), and of a file that is older than the
program.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError

from ipbp.build.debug_container import opened
from ipbp.build.debug_sections import section_content
from ipbp.build.snapshot import MISSING, Snapshot
from ipbp.build.store import Store
from ipbp.build.unnoticed import of_git

AS_GIT_HAS_IT = "as git has it"
_SYSTEM = ("/usr/include/", "/usr/lib/", "/usr/local/lib/rustlib/", "/nix/store/")


@dataclass(frozen=True, slots=True)
class Origin:
    """What an image was compiled from. `made_ns`: when its file was written. `holds`: whether a checksum is in its line
    tables. `kept`: path -> sha256 of sources that were seen before anybody edited them."""

    made_ns: int
    holds: Callable[[bytes], bool]
    kept: Mapping[str, str]

    def is_unedited(self, path: str, snapshot: Snapshot) -> bool:
        """Whether the file still has the text that the image was compiled from."""
        modified = snapshot.modified_ns(path)
        return modified != MISSING and (modified <= self.made_ns or self.holds(sum_of(Path(path).read_bytes())))

    def text(self, path: str, is_summed: bool, store: Store) -> tuple[str, str]:
        """sha256 of that text, which is in the store then, and what is to be said of it when that is not certain;
        ("", "") when nobody has it. `is_summed`: the compiler writes checksums."""
        digest = self.kept.get(path, "")
        if digest and store.keep(digest):
            return digest, ""
        found = list(of_git(Path(path)))
        known = next((content for content in found if self.holds(sum_of(content))), None)
        if known is not None:
            return store.put(known), ""
        return (store.put(found[0]), AS_GIT_HAS_IT) if found and not is_summed else ("", "")


def sum_of(content: bytes) -> bytes:
    """The checksum of a text in line tables (DWARF 5, 6.2.4.1, DW_LNCT_MD5). Nothing else there is likely to look like
    it."""
    return hashlib.md5(content, usedforsecurity=False).digest()


def line_tables(path: Path) -> bytes:
    """Those of a linked file, b"" when it has none or cannot be read."""
    try:
        with path.open("rb") as file:
            return section_content(opened(file), "debug_line") or b""
    except (ELFError, OSError, ValueError):
        return b""


def is_projects(path: str) -> bool:
    """Whether a source is the project's own, and not what the system brings."""
    return not path.startswith(_SYSTEM)


def keep_text(path: str, digest: str, store: Store) -> bool:
    """Keep a source as it was compiled, so that a later patch can show what was before; whether that is possible: one
    that was saved since is another text."""
    if store.keep(digest):
        return True
    try:
        return store.put(Path(path)) == digest
    except OSError:
        return False
