"""What is asked of a process's memory in several places: by a debugger, by the kernel, or by a test's double."""

from __future__ import annotations

from typing import Optional, Protocol, Sequence

from ipbp.errors import IpbpError
from ipbp.protocol import Region


class Readable(Protocol):
    """The part of an inferior that reads."""

    def read(self, address: int, size: int) -> bytes: ...


class Memory(Readable, Protocol):
    """The part of an inferior that is looked at; the program may run meanwhile."""

    def regions(self) -> list[Region]: ...


def read_or_none(memory: Readable, address: int, size: int) -> Optional[bytes]:
    """The bytes there; None when not all of them can be read."""
    try:
        return memory.read(address, size)
    except IpbpError as error:
        if error.code == "inferior-memory":
            return None
        raise


def mappings_of(start: int, end: int, regions: Sequence[Region]) -> list[Region]:
    """All mappings that this range touches; [] when it is not mapped throughout."""
    inside = [row for row in regions if row.start < end and start < row.end]
    mapped = sum(min(row.end, end) - max(row.start, start) for row in inside)
    return inside if mapped == end - start else []
