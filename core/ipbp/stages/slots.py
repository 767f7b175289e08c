"""Slots of running tables of virtual functions, which get other functions: a pointer each, written with the jumps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ipbp.errors import Refusal
from ipbp.graph.image import MemoryReader
from ipbp.graph.layout import Layout
from ipbp.graph.unit import Unit
from ipbp.protocol import Replacement

_SIZE = 8


class Linked(Protocol):
    """Units and where everything of theirs lies."""

    @property
    def units(self) -> Sequence[Unit]: ...
    @property
    def layout(self) -> Layout: ...


def rewrite_slots(
    groups: Sequence[Linked], images: Mapping[str, int], read: MemoryReader
) -> tuple[tuple[Replacement, ...], list[Refusal]]:
    """What is written to the slots, once for each, and `entry-unreadable` for those that are not there. `images`: row
    of each image in the plan, by key."""
    wanted: dict[int, tuple[Unit, str, int]] = {}
    for group in groups:
        for unit, columns in zip(group.units, group.layout.units, strict=True):
            for slot in unit.slots:
                meaning = int(columns.meaning[slot.symbol]) + slot.addend
                wanted.setdefault(slot.address, (unit, slot.table, meaning))
    contents = read([(address, _SIZE) for address in wanted]) if wanted else []
    made, refusals = [], []
    for (address, (unit, table, meaning)), content in zip(wanted.items(), contents, strict=True):
        if content is None:
            refusals.append(_unreadable(table, unit.name))
            continue
        value = meaning.to_bytes(_SIZE, "little")
        made.append(Replacement(address, content, value, table, images[unit.image]))
    return tuple(made), refusals


def _unreadable(table: str, file: str) -> Refusal:
    return Refusal(
        "entry-unreadable",
        f"the table of virtual functions '{table}' cannot be read",
        "The library that holds it was unloaded, or the program is ending: start it again.",
        table,
        file,
    )
