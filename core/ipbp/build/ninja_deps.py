"""What ninja remembers of each object's headers: ninja deletes the depfiles once it has read them.

CMake's Ninja generator and meson build this way. `.ninja_deps` is a log of records that only grows, so the last one
of an object counts (ninja, `src/deps_log.h`): a line `# ninjadeps`, a version, then records, each a little-endian
32-bit size with the top bit set for dependencies. A path record holds the name, padded to 4 bytes, and a check of
its number; a dependency record holds the object's number, its time and the numbers of what it depends on.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Mapping
from pathlib import Path

_SIGNATURE = b"# ninjadeps\n"
_TIME_SIZE = {3: 4, 4: 8}  # by version of the log
_DEPENDENCIES = 0x80000000


def ninja_dependencies(directory: Path, output: Path) -> tuple[str, ...] | None:
    """What the object depends on, absolute, by the log in its build folder, which is `directory` for what ninja
    builds; None when there is no log, it is of an unknown version, or does not know the object."""
    try:
        content = (directory / ".ninja_deps").read_bytes()
    except OSError:
        return None
    return _read(content, str(directory)).get(str(output))


@functools.lru_cache(maxsize=2)
def _read(content: bytes, directory: str) -> Mapping[str, tuple[str, ...]]:
    if not content.startswith(_SIGNATURE) or len(content) < len(_SIGNATURE) + 4:
        return {}
    position = len(_SIGNATURE) + 4
    (version,) = struct.unpack_from("<i", content, position - 4)
    if version not in _TIME_SIZE:
        return {}
    head = 4 + _TIME_SIZE[version]
    paths: list[str] = []
    rows: dict[int, tuple[int, ...]] = {}
    # A record that is cut off ends the log: ninja was stopped while it wrote, and does the same.
    while position + 4 <= len(content):
        (word,) = struct.unpack_from("<I", content, position)
        size = word & ~_DEPENDENCIES
        record = content[position + 4 : position + 4 + size]
        position += 4 + size
        if len(record) < size or size % 4 or size < 4:
            break
        if word & _DEPENDENCIES:
            if size < head:
                break
            numbers = struct.unpack(f"<{(size - head) // 4}i", record[head:])
            rows[struct.unpack_from("<i", record)[0]] = numbers
        else:
            name = os.fsdecode(record[:-4].rstrip(b"\0"))
            paths.append(os.path.normpath(os.path.join(directory, name)))
    known = range(len(paths))
    return {
        paths[output]: tuple(paths[number] for number in numbers if number in known)
        for output, numbers in rows.items()
        if output in known
    }
