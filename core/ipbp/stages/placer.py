"""Hands out addresses in the arena, chunk by chunk, each chunk a run of bytes with one meaning.

Chunks of one protection follow each other in a fixed order, so that what comes from the patch file is one run and
the memory that is merely zero stands at its end.
"""

from __future__ import annotations

from ipbp.errors import IpbpError
from ipbp.graph.layout import Chunk
from ipbp.stages.arena import Arena

_PROTECTION = {
    ".text": "rx",
    ".stubs": "rx",
    ".rodata": "r",
    ".data.rel.ro": "r",
    ".tdata": "r",
    ".got": "r",
    ".eh_frame": "r",
    ".pdata": "r",
    ".data": "rw",
    ".bss": "rw",
}
_ORDER = tuple(_PROTECTION)


class Placer:
    """`put` in the order of `_ORDER` within a protection: a chunk is closed once a later one has begun."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._next = {part.protection: part.next for part in arena.parts}
        self._chunks: dict[str, Chunk] = {}

    def put(self, name: str, size: int, alignment: int) -> int:
        """The address of `size` bytes of the chunk `name`. Errors: `arena-full`."""
        protection = _PROTECTION[name]
        later = _ORDER[_ORDER.index(name) + 1 :]
        assert not any(_PROTECTION[other] == protection for other in later if other in self._chunks), name
        address = -(-self._next[protection] // alignment) * alignment
        if address + size > self._arena.part(protection).end:
            raise IpbpError(
                "arena-full",
                f"the memory reserved for patches has no {size} bytes left with protection {protection}",
                "Undo earlier patches, or restart the program.",
            )
        self._next[protection] = address + size
        old = self._chunks.get(name)
        start, widest = (old.start, max(old.alignment, alignment)) if old else (address, alignment)
        self._chunks[name] = Chunk(name, protection, start, address + size - start, widest, name == ".bss")
        return address

    def chunks(self) -> tuple[Chunk, ...]:
        """All of them, by protection and address."""
        return tuple(self._chunks[name] for name in _ORDER if name in self._chunks)
