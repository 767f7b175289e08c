"""Which arena each unit of a patch goes to.

All units of one image go to the same arena: an earlier one that reaches the image and has room, else a new one. A new
one must also reach the image's earlier arenas, since new code refers to the variables of earlier patches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ipbp.arch.machines import machine_of
from ipbp.graph.image import LoadedImage
from ipbp.graph.layout import Unwinder
from ipbp.graph.unit import Unit
from ipbp.protocol import Region
from ipbp.stages.arena import Arena, choose_arena, choose_arena_behind, room
from ipbp.stages.layout import Group, demand


@dataclass(frozen=True, slots=True)
class Grouped:
    """`groups` in the order of the arenas. `order`: for each group the rows of `units` that it holds. `is_new`: for
    each group whether its arena has to be mapped."""

    groups: tuple[Group, ...]
    order: tuple[tuple[int, ...], ...]
    is_new: tuple[bool, ...]


def grouped(
    units: Sequence[Unit],
    images: Mapping[str, LoadedImage],
    unwinders: Mapping[str, Sequence[Unwinder]],
    arenas: Sequence[Arena],
    regions: Sequence[Region],
) -> Grouped:
    """The units by arena. `images`, `unwinders`: by the key of the unit's image. `arenas`: of earlier patches.
    Errors: `no-near-memory`."""
    fills = [_Fill(arena) for arena in arenas]
    for key in dict.fromkeys(unit.image for unit in units):
        rows = [row for row, unit in enumerate(units) if unit.image == key]
        needed = demand([units[row] for row in rows], unwinders.get(key, ()))
        fill = next((fill for fill in fills if fill.takes(images[key], needed)), None)
        if fill is None:
            fill = _Fill(new_arena(images[key], needed, [fill.arena for fill in fills], regions), is_new=True)
            fills.append(fill)
        fill.rows += rows
        fill.needed.update(needed)
    used = [fill for fill in fills if fill.rows]
    groups = []
    for fill in used:
        members = [units[row] for row in fill.rows]
        found = dict.fromkeys(row for unit in members for row in unwinders.get(unit.image, ()))
        groups.append(Group(members, fill.arena, tuple(found)))
    return Grouped(tuple(groups), tuple(tuple(fill.rows) for fill in used), tuple(fill.is_new for fill in used))


@dataclass(slots=True)
class _Fill:
    """An arena while the units are handed out; `needed`: bytes by protection so far."""

    arena: Arena
    is_new: bool = False
    rows: list[int] = field(default_factory=list)
    needed: Counter[str] = field(default_factory=Counter)

    def takes(self, image: LoadedImage, needed: Mapping[str, int]) -> bool:
        return self.arena.serves(image) and room(self.arena, self.needed + Counter(needed))


def new_arena(
    image: LoadedImage, needed: Mapping[str, int], arenas: Sequence[Arena], regions: Sequence[Region]
) -> Arena:
    """A new arena for units of this image that need so much. Errors: `no-near-memory`."""
    if image.counts_upwards:
        return choose_arena_behind(regions, image, arenas, needed)
    own = [arena for arena in arenas if image.key in arena.images]
    taken = [Region(arena.base, arena.end, "") for arena in arenas]
    return choose_arena(
        [*regions, *taken],
        min([image.near_start, *(arena.base for arena in own)]),
        max([image.near_end, *(arena.end for arena in own)]),
        low_2g=image.is_low,
        demand=needed,
        reach=machine_of(image.machine).entry.reach,
    )
