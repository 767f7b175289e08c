"""Where an arena goes: in reach of the whole image, away from what the heap and the stack grow into."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ipbp.errors import IpbpError
from ipbp.graph.image import ImageSymbols, LoadedImage
from ipbp.graph.name_index import NameIndex
from ipbp.graph.names import Names
from ipbp.protocol import Region
from ipbp.stages.arena import LOW_END, REACH, Arena, choose_arena, choose_arena_behind, room

PIE = (0x5555_5555_4000, 0x5555_5556_0000)
FIXED = (0x40_0000, 0x40_5000)
LIBRARIES = Region(0x7FFF_F7DC_0000, 0x7FFF_F7FF_F000, "r-x", 0, "/lib/libc.so.6")
STACK = Region(0x7FFF_FFFD_E000, 0x7FFF_FFFF_F000, "rw-", 0, "[stack]")


def _regions(image: tuple[int, int], *more: Region) -> list[Region]:
    return [Region(*image, "r-x", 0, "/app"), *more, LIBRARIES, STACK]


def _is_free(arena: Arena, regions: list[Region]) -> bool:
    return all(arena.end <= region.start or region.end <= arena.base for region in regions)


def _farthest(arena: Arena, image: tuple[int, int]) -> int:
    return max(arena.end - image[0], image[1] - arena.base)


def test_the_arena_of_a_pie_lies_below_it_and_every_byte_reaches_every_byte() -> None:
    regions = _regions(PIE, Region(PIE[1], PIE[1] + 0x21000, "rw-", 0, "[heap]"))
    arena = choose_arena(regions, *PIE)
    assert arena.end <= PIE[0]
    assert _farthest(arena, PIE) < REACH
    assert _is_free(arena, regions)


def test_parts_are_whole_pages_back_to_back_and_never_writable_and_executable() -> None:
    arena = choose_arena(_regions(PIE), *PIE)
    assert [part.protection for part in arena.parts] == ["rx", "r", "rw"]
    assert [part.size for part in arena.parts] == [4 << 20, 2 << 20, 4 << 20]
    assert [part.start for part in arena.parts[1:]] == [part.end for part in arena.parts[:-1]]
    assert all(part.start % 4096 == 0 for part in arena.parts)
    assert [(a.address, a.size, a.protection) for a in arena.allocations()] == [
        (part.start, part.size, part.protection) for part in arena.parts
    ]


def test_the_arena_of_a_fixed_image_is_below_2_gib_and_far_above_its_heap() -> None:
    heap = Region(0x200_0000, 0x202_1000, "rw-", 0, "[heap]")
    arena = choose_arena(_regions(FIXED, heap), *FIXED, low_2g=True)
    assert arena.end <= LOW_END
    assert arena.base - heap.end > 1 << 30
    assert _farthest(arena, FIXED) < REACH


def test_a_part_grows_with_what_the_patch_needs() -> None:
    arena = choose_arena(_regions(PIE), *PIE, demand={"rx": 3 << 20, "r": 10})
    assert arena.part("rx").size == 6 << 20
    assert arena.part("r").size == 2 << 20


def test_a_hole_that_is_one_page_too_small_is_not_taken() -> None:
    size = 10 << 20
    high = PIE[0] - (1 << 20)
    wall = Region(high - size - 2 * 4096, high - size, "r--")
    regions = _regions(PIE, wall)
    arena = choose_arena(sorted(regions, key=lambda region: region.start), *PIE)
    assert arena.end <= wall.start
    assert _is_free(arena, regions)


def test_no_hole_in_reach_is_an_error_with_its_code() -> None:
    everything = [Region(0x1000, 0x7FFF_F000_0000, "r--")]
    with pytest.raises(IpbpError) as caught:
        choose_arena(everything, *PIE)
    assert caught.value.code == "no-near-memory"


def test_memory_that_the_stack_may_grow_into_is_left_alone() -> None:
    stack = Region(PIE[0] - (16 << 20), PIE[0] - (15 << 20), "rw-", 0, "[stack]")
    arena = choose_arena([stack, *_regions(PIE)], *PIE)
    assert arena.base >= stack.end or arena.end <= stack.start - (128 << 20)


def test_a_program_above_half_of_the_larger_address_space_gets_its_arena_there() -> None:
    image = (0xAAAA_AC0B_0000, 0xAAAA_AC0D_0000)  # of AArch64
    arena = choose_arena([Region(*image, "r-x", 0, "/app")], *image)
    assert arena.end <= image[0]
    assert _farthest(arena, image) < REACH


def test_an_arena_reaches_as_far_as_a_32_bit_distance_and_not_further() -> None:
    arena = choose_arena(_regions(PIE), *PIE)
    assert arena.reaches(PIE[0])
    assert arena.reaches(arena.base + REACH)
    assert not arena.reaches(arena.base + REACH + 1)
    assert arena.reaches(arena.end - REACH)
    assert not arena.reaches(arena.end - REACH - 1)


def test_room_is_counted_up_to_the_last_byte() -> None:
    arena = choose_arena(_regions(PIE), *PIE)
    assert room(arena, {"rx": 4 << 20})
    assert not room(arena, {"rx": (4 << 20) + 1})


def test_what_a_patch_took_is_not_given_again_and_survives_json() -> None:
    arena = choose_arena(_regions(PIE), *PIE)
    start = arena.part("rx").start
    taken = Arena.from_json(arena.taken({"rx": start + 100}).to_json())
    assert taken.part("rx").used == 100
    assert taken.part("rx").next == start + 128
    assert taken.part("r") == arena.part("r")
    assert taken.taken({"rx": start + 50}) == taken


def test_a_smaller_arena_is_made_where_the_usual_one_does_not_fit() -> None:
    # A fixed program whose variables end beyond 2 GiB: what is free lies below it.
    image = (0x40_0000, 0xC000_0000)
    regions = _regions(image)
    arena = choose_arena(regions, image[0], image[0] + 0x5000, low_2g=True)
    assert arena.end <= image[0]
    assert _is_free(arena, regions)
    assert 0 < arena.end - arena.base < 3 << 20
    with pytest.raises(IpbpError) as caught:
        choose_arena(regions, image[0], image[0] + 0x5000, low_2g=True, demand={"rw": 2 << 20})
    assert caught.value.code == "no-near-memory"


WINDOWS = (0x1_4000_0000, 0x1_4003_F000)


def _image_of_windows() -> LoadedImage:
    names = Names.of(())
    none = np.empty(0, dtype=np.int64)
    octets = none.astype(np.uint8)
    symbols = ImageSymbols(names, none, none, octets, octets, none, (), NameIndex(names))
    start, end = WINDOWS
    image = LoadedImage("told.exe", "told.exe", "", 0, start, end, symbols, {}, {}, (), 0, True)
    return replace(image, near_start=start, near_end=end, format="coff", grain=1 << 16, counts_upwards=True)


def test_where_fields_count_upwards_an_arena_lies_behind_the_image_and_all_others() -> None:
    image = _image_of_windows()
    library = Region(0x1_4050_0000, 0x1_4070_1000, "rx", 0, "C:\\a.dll")
    regions = [Region(*WINDOWS, "rx", 0, "told.exe"), library]
    first = choose_arena_behind(regions, image, ())
    assert first.base >= library.end
    assert _is_free(first, regions)
    assert first.serves(image)
    second = choose_arena_behind([*regions, Region(first.base, first.end, "")], image, [first], {"r": 5 << 20})
    assert second.base >= first.end
    assert second.part("r").size == 10 << 20
    for part in (*first.parts, *second.parts):
        assert part.start % (1 << 16) == part.size % (1 << 16) == 0
    below = Arena(WINDOWS[0] - (1 << 28), tuple(replace(p, start=p.start - (1 << 29)) for p in first.parts))
    assert not below.serves(image)
    everything = [*regions, Region(library.end, WINDOWS[0] + (1 << 32), "")]
    with pytest.raises(IpbpError) as caught:
        choose_arena_behind(everything, image, ())
    assert caught.value.code == "no-near-memory"
