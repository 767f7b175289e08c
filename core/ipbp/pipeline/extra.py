"""Read-only bytes that a patch brings beside its linked units: they go to an arena, into a file of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ipbp.formats.elf_patch import write_patch
from ipbp.graph.image import LoadedImage
from ipbp.graph.layout import Chunk, Layout, LinkedImage
from ipbp.protocol import Allocation, Region, Segment
from ipbp.stages.arena import Arena, choose_arena, room


@dataclass(frozen=True, slots=True)
class Extra:
    """Room at `start`. `allocations`: what has to be mapped for it; `arenas`: all of them, without what it takes."""

    start: int
    allocations: tuple[Allocation, ...]
    arenas: tuple[Arena, ...]
    machine: str

    def write(self, file: Path, content: bytes) -> tuple[tuple[Segment, ...], tuple[Arena, ...]]:
        """The patch file with these bytes: its segments, and the arenas with what it takes. Errors: OSError."""
        layout = Layout((), (Chunk(".rodata", "r", self.start, len(content), 1),), (), (), None, (), ())
        patch = write_patch(file, (), layout, LinkedImage({"rx": b"", "r": content, "rw": b""}, ()), self.machine)
        taken = [arena.taken(layout.ends()) if arena.base <= self.start < arena.end else arena for arena in self.arenas]
        return patch.segments, tuple(taken)


def extra_room(arenas: Sequence[Arena], regions: Sequence[Region], image: LoadedImage, size: int) -> Extra:
    """Room for `size` bytes near the image: in one of these arenas, or in a new one. Errors: `no-near-memory`."""
    known = next((arena for arena in arenas if arena.serves(image) and room(arena, {"r": size})), None)
    if known is not None:
        return Extra(known.part("r").next, (), tuple(arenas), image.machine)
    taken = [Region(arena.base, arena.end, "") for arena in arenas]
    low_2g = image.is_low
    arena = choose_arena([*regions, *taken], image.near_start, image.near_end, low_2g=low_2g, demand={"r": size})
    return Extra(arena.part("r").next, arena.allocations(), (*arenas, arena), image.machine)
