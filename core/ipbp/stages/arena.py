"""Arena: memory near loaded images, in which all patches of these images live.

Compiled code reaches its functions and variables by signed 32-bit distances (psABI, small code model), so new code
must lie within 2 GiB of *every* byte of the image that it refers to; and below 2 GiB altogether where the image is
not position independent, because its code also holds 32-bit absolute addresses. The arena is mapped once, at an
address chosen here from the memory map, and filled by one patch after the other: later patches know their addresses
before the program is stopped. Three parts, each with its own protection: nothing is ever writable and executable.
Libraries lie side by side, so one arena mostly serves all that are patched.

Room that the program itself will grow into is left alone: the heap grows upwards from a random place above the
image (brk(2); Linux moves it by up to 1 GiB), the main thread's stack grows downwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ipbp.errors import IpbpError
from ipbp.graph.image import LoadedImage
from ipbp.protocol import Allocation, Region

PAGE = 4096
KIB, MIB = 1 << 10, 1 << 20
REACH = (1 << 31) - 64 * KIB
"""Largest distance between two bytes of arena and image. A little less than a 32-bit field holds: addends and
instruction lengths are added to it."""
LOW_END = 1 << 31
"""End of what a sign-extended 32-bit field can hold as an address."""
LOWEST = 64 * KIB  # vm.mmap_min_addr as distributions set it
HIGHEST = (1 << 47, 1 << 48)
"""End of user addresses: with four-level page tables of x86-64; of AArch64, where a program may lie above that, too
(Documentation/arch/arm64/memory.rst)."""
PART_GRAIN = 64  # a patch starts at a cache line of its own
DEFAULT_SIZES: Mapping[str, int] = {"rx": 4 * MIB, "r": 2 * MIB, "rw": 4 * MIB}

_DIVISORS = (1, 4, 16)
_GAP_BELOW_IMAGE = 1 * MIB
_GAP_BEHIND_IMAGE = 1 * MIB
_STACK_GROWTH = 128 * MIB  # the least that Linux keeps free below a stack (arch/x86/mm/mmap.c, MIN_GAP)


@dataclass(frozen=True, slots=True)
class Part:
    """Memory with one protection: `start` and `size` in whole pages, `used` bytes from `start` on are taken."""

    protection: str
    start: int
    size: int
    used: int = 0

    @property
    def next(self) -> int:
        """Where the next patch starts."""
        return self.start + -(-self.used // PART_GRAIN) * PART_GRAIN

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Arena:
    """`parts` in address order, back to back from `base` on. `images`: keys of those that have code in it."""

    base: int
    parts: tuple[Part, ...]
    images: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        return self.parts[-1].end

    def part(self, protection: str) -> Part:
        return next(part for part in self.parts if part.protection == protection)

    def reaches(self, address: int, reach: int = REACH) -> bool:
        """Whether such a distance from anywhere in the arena leads to `address`: by default one of 32 bits."""
        return self.end - reach <= address <= self.base + reach

    def serves(self, image: LoadedImage) -> bool:
        """Whether code of this image can run here."""
        if image.counts_upwards and self.base < image.end:
            return False
        near = self.reaches(image.near_start) and self.reaches(image.near_end)
        return near and (not image.is_low or self.end <= LOW_END)

    def taken(self, ends: Mapping[str, int], images: Iterable[str] = ()) -> Arena:
        """The arena after a patch of these images that fills each named part up to the given address."""
        parts = (
            replace(part, used=max(part.used, ends.get(part.protection, part.start) - part.start))
            for part in self.parts
        )
        return Arena(self.base, tuple(parts), tuple(dict.fromkeys((*self.images, *images))))

    def allocations(self) -> tuple[Allocation, ...]:
        """What has to be mapped before the first patch."""
        return tuple(Allocation(part.start, part.size, part.protection) for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        return {"base": self.base, "parts": [asdict(part) for part in self.parts], "images": list(self.images)}

    @staticmethod
    def from_json(row: dict[str, Any]) -> Arena:
        return Arena(row["base"], tuple(Part(**part) for part in row["parts"]), tuple(row["images"]))


def choose_arena(
    regions: Sequence[Region],
    image_start: int,
    image_end: int,
    low_2g: bool = False,
    demand: Mapping[str, int] | None = None,
    reach: int = REACH,
) -> Arena:
    """An unused arena near the image at [image_start, image_end); nothing is mapped yet.

    `demand`: bytes that the coming patch needs, by protection; a part is at least twice that. `low_2g`: the image is
    linked at fixed addresses, so the arena must lie below 2 GiB. Where the usual size does not fit, a smaller one
    does for a while. `reach`: how far a jump of the machine's shortest kind leads; the arena is farther away only where
    nothing is free as near as that.

    Errors: `no-near-memory`.
    """
    end = next((end for end in HIGHEST if image_end <= end), image_end)
    tries = [(distance, divisor) for distance in dict.fromkeys((reach, REACH)) for divisor in _DIVISORS]
    for distance, divisor in tries:
        lowest = max(LOWEST, image_end - distance)
        highest = min(LOW_END if low_2g else end, image_start + distance)
        holes = list(_holes(regions, lowest, highest))
        sizes = {
            protection: _whole_pages(max(size // divisor, 2 * (demand or {}).get(protection, 0)))
            for protection, size in DEFAULT_SIZES.items()
        }
        size = sum(sizes.values())
        base = _choose_base(holes, size, image_start)
        if base is not None:
            break
    else:
        raise _no_memory(size, image_start)
    return _with_parts(base, sizes)


def choose_arena_behind(
    regions: Sequence[Region], image: LoadedImage, arenas: Sequence[Arena], demand: Mapping[str, int] | None = None
) -> Arena:
    """The same behind the image, as near as possible, at a multiple of its grain. It lies behind all earlier `arenas`,
    too: Wine (8.0) takes the first table of unwind rows that reaches beyond an address, in the order of their
    registration, from the image's start on.

    Errors: `no-near-memory`.
    """
    lowest, grain = max([image.end, *(arena.end for arena in arenas)]) + _GAP_BEHIND_IMAGE, image.grain
    sizes = {
        protection: -(-max(size, 2 * (demand or {}).get(protection, 0)) // grain) * grain
        for protection, size in DEFAULT_SIZES.items()
    }
    for start, end in _holes(regions, lowest, image.start + REACH):
        base = -(-start // grain) * grain
        if base + sum(sizes.values()) <= end:
            return _with_parts(base, sizes)
    raise _no_memory(sum(sizes.values()), image.start)


def room(arena: Arena, sizes: Mapping[str, int]) -> bool:
    """Whether a patch of these sizes, by protection, still fits."""
    return all(part.next + sizes.get(part.protection, 0) <= part.end for part in arena.parts)


def _with_parts(base: int, sizes: Mapping[str, int]) -> Arena:
    parts, start = [], base
    for protection, size in sizes.items():
        parts.append(Part(protection, start, size))
        start += size
    return Arena(base, tuple(parts))


def _no_memory(size: int, image_start: int) -> IpbpError:
    return IpbpError(
        "no-near-memory",
        f"no {size // KIB} KiB of free addresses within 2 GiB of the image at {image_start:#x}",
        "Undo earlier patches, or restart the program: new code has to lie near the old.",
    )


def _choose_base(holes: list[tuple[int, int]], size: int, image_start: int) -> int | None:
    below = [
        _floor_page(min(end, image_start - _GAP_BELOW_IMAGE) - size) for start, end in holes if start < image_start
    ]
    fits = [base for base in below if any(start <= base and base + size <= end for start, end in holes)]
    if fits:
        return max(fits)
    # Above the image the heap comes first: the highest place in reach leaves it the most room.
    above = [_floor_page(end - size) for start, end in holes if start >= image_start and end - start >= size]
    return max(above, default=None)


def _holes(regions: Sequence[Region], lowest: int, highest: int) -> Iterator[tuple[int, int]]:
    """Free ranges in [lowest, highest), page-aligned, without what a stack may still grow into."""
    end = -(-lowest // PAGE) * PAGE
    for region in sorted(regions, key=lambda row: row.start):
        start = region.start - (_STACK_GROWTH if region.path.startswith("[stack") else PAGE)
        if min(start, highest) > end:
            yield end, _floor_page(min(start, highest))
        end = max(end, region.end + PAGE)
    if highest > end:
        yield end, _floor_page(highest)


def _whole_pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _floor_page(address: int) -> int:
    return address & -PAGE
