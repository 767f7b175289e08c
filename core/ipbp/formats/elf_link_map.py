"""The dynamic loader's own lists of what is loaded: one for each namespace, in the order of loading.

ld.so tells debuggers through DT_DEBUG of the executable: a `struct r_debug` with the head of a chain of `struct
link_map` (<link.h>). Before ld.so has run the pointer is 0, and a static executable has none: then there is no list.
From version 2 on (glibc 2.35) the structure has a successor for each further namespace, which dlmopen(3) makes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipbp.formats.elf_dynamic import DT_DEBUG
from ipbp.formats.elf_linked import PT_DYNAMIC, LinkedFile
from ipbp.graph.image import MemoryReader

_MOST = 65536  # a damaged list may run in a circle
_MOST_NAMESPACES = 64  # glibc has 16 (DL_NNS)


@dataclass(frozen=True, slots=True)
class LinkMap:
    """`address`: of the structure itself; `bias`: l_addr; `dynamic`: load address of its dynamic section."""

    address: int
    bias: int
    dynamic: int


def namespaces(executable: LinkedFile, bias: int, read: MemoryReader) -> list[list[LinkMap]]:
    """The chains; the first is the program's own, with the executable at its head. [] when the loader has not made
    it yet or memory cannot be read."""
    segment = executable.segment(PT_DYNAMIC)
    if segment is None:
        return []
    content = read([(bias + segment.address, segment.size // 16 * 16)])[0] or b""
    at = next((_word(content, at + 8) for at in range(0, len(content), 16) if _word(content, at) == DT_DEBUG), 0)
    found: list[list[LinkMap]] = []
    while at and len(found) < _MOST_NAMESPACES:
        head = read([(at, 48)])[0] or b""  # int r_version, r_map, r_brk, r_state, r_ldbase, and r_next in version 2
        chain = _chain(_word(head, 8), read)
        if chain:
            found.append(chain)
        elif not found:
            return []
        at = _word(head, 40) if int.from_bytes(head[:4], "little") >= 2 else 0
    return found


def _chain(at: int, read: MemoryReader) -> list[LinkMap]:
    found: list[LinkMap] = []
    while at and len(found) < _MOST:
        row = read([(at, 40)])[0]  # l_addr, l_name, l_ld, l_next, l_prev
        if row is None:
            return []
        found.append(LinkMap(at, _word(row, 0), _word(row, 16)))
        at = _word(row, 24)
    return found


def _word(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")
