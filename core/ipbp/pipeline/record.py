"""What a patch leaves behind for the next one: kept by the plugin in its journal, understood by the engine only.

For each translation unit that was patched: the object that runs now, by its content hash in the store, and the load
address of everything that has a name in it, with what the linker bound names of other objects to. One source may be
part of several images; each has a unit of its own. Records are cumulative: the record of the newest applied patch says
it all, and after an undo the one before it does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """`object`: sha256 of the object that runs; "" for a unit whose definitions are in other units now, and for what
    was taken out of an archive as it is. `address`: name -> load address (a function's is its old entry).
    `dependencies`: path -> sha256 of every file that it was compiled from. `retired`: functions and shared variables
    that this unit no longer has, by name, with their addresses and sizes: a function that comes back keeps its
    address. `beside`: names of functions that are not the next version of what the image has under that name, and run
    beside it. `straight`: see `stages.straight`. `copies`: by name, the load addresses and sizes of more copies of a
    function, which run the same code. `members`: of a crate's objects those that patches had to do with; the others are
    as they were linked, and `address` does not know them. None for all. `flags`: with which it was compiled, beside
    those of its command, because the user asked for it. `linked`: the object that the image was linked from, by its
    content hash in the store; "" where memory proved none, None where the image was built without the unit.
    `is_optimised`: see `pipeline.edited.Edited`. `formers`: names that something had before patches gave
    it another, by another linkage say, with the address: the image's symbols still say them. `source`, `inner`: of what
    was taken out of an archive, the unit that its object is of (STT_FILE), and the addresses of what that object alone
    sees."""

    object: str
    address: dict[str, int]
    dependencies: dict[str, str] = field(default_factory=dict)
    retired: dict[str, tuple[int, int]] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    straight: tuple[str, ...] = ()
    copies: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    members: tuple[str, ...] | None = None
    flags: tuple[str, ...] = ()
    linked: str | None = ""
    is_optimised: bool = True
    formers: dict[str, int] = field(default_factory=dict)
    source: str = ""
    inner: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """By the key of the image, then by source path or by what else names the unit. `threads`: blocks of thread-local
    variables that patches brought, (load address of the initial values, their size, address of the cell with the
    block's offset from the thread pointer)."""

    images: dict[str, dict[str, UnitRecord]] = field(default_factory=dict)
    threads: tuple[tuple[int, int, int], ...] = ()

    def units(self, image: str) -> dict[str, UnitRecord]:
        """The units of one image."""
        return self.images.get(image, {})

    def without(self, images: Iterable[str]) -> Record:
        """The record without the units of these images."""
        gone = set(images)
        return Record({key: units for key, units in self.images.items() if key not in gone}, self.threads)

    @staticmethod
    def from_json(row: dict[str, Any]) -> Record:
        images = row.get("images", {})
        return Record(
            {key: {name: _unit(unit) for name, unit in units.items()} for key, units in images.items()},
            tuple((start, size, cell) for start, size, cell in row.get("threads", ())),
        )

    def to_json(self) -> dict[str, Any]:
        """What is plain JSON already is the record's own, and not to be changed."""
        return {
            "images": {key: {name: _row(unit) for name, unit in units.items()} for key, units in self.images.items()},
            "threads": list(self.threads),
        }


def _row(unit: UnitRecord) -> dict[str, Any]:
    return {column.name: getattr(unit, column.name) for column in fields(unit)}


def _unit(row: dict[str, Any]) -> UnitRecord:
    members = row.get("members")
    flags = tuple(row.get("flags", ()))
    return UnitRecord(**{**row, "members": None if members is None else tuple(members), "flags": flags})
