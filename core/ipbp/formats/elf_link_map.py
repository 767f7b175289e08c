"""The dynamic loader's own list of what is loaded, in the order in which it looks for symbols.

ld.so tells debuggers through DT_DEBUG of the executable: a `struct r_debug` with the head of a chain of `struct
link_map` (<link.h>). Before ld.so has run the pointer is 0, and a static executable has none: then there is no list.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipbp.formats.elf_dynamic import DT_DEBUG
from ipbp.formats.elf_linked import PT_DYNAMIC, LinkedFile
from ipbp.graph.image import MemoryReader

_MOST = 65536  # a damaged list may run in a circle


@dataclass(frozen=True, slots=True)
class LinkMap:
    """`bias`: l_addr; `dynamic`: load address of its dynamic section; `complete` is false while ld.so changes it."""

    bias: int
    dynamic: int


def link_maps(executable: LinkedFile, bias: int, read: MemoryReader) -> list[LinkMap]:
    """The chain, the executable first; [] when the loader has not made it yet or memory cannot be read."""
    segment = executable.segment(PT_DYNAMIC)
    if segment is None:
        return []
    content = read([(bias + segment.address, segment.size // 16 * 16)])[0] or b""
    r_debug = next((_word(content, at + 8) for at in range(0, len(content), 16) if _word(content, at) == DT_DEBUG), 0)
    if r_debug == 0:
        return []
    at = _word(read([(r_debug, 16)])[0] or bytes(16), 8)  # r_map, after the int r_version and its padding
    found: list[LinkMap] = []
    while at and len(found) < _MOST:
        row = read([(at, 40)])[0]  # l_addr, l_name, l_ld, l_next, l_prev
        if row is None:
            return []
        found.append(LinkMap(_word(row, 0), _word(row, 16)))
        at = _word(row, 24)
    return found


def _word(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")
