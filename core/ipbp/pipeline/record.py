"""What a patch leaves behind for the next one: kept by the plugin in its journal, understood by the engine only.

For each translation unit that was patched: the object that runs now, by its content hash in the store, and the load
address of everything that has a name in it. Records are cumulative: the record of the newest applied patch says it
all, and after an undo the one before it does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """`object`: sha256 of the object that runs; "" for a unit whose definitions are in other units now. `address`:
    name -> load address (a function's is its old entry). `dependencies`: path -> sha256 of every file that it was
    compiled from. `retired`: functions and shared variables that this unit no longer has, by name, with their
    addresses and sizes: a function that comes back keeps its address."""

    object: str
    address: dict[str, int]
    dependencies: dict[str, str] = field(default_factory=dict)
    retired: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """By source path, or by what else names the unit."""

    units: dict[str, UnitRecord] = field(default_factory=dict)

    @staticmethod
    def from_json(row: dict[str, Any]) -> Record:
        return Record({name: UnitRecord(**unit) for name, unit in row.get("units", {}).items()})

    def to_json(self) -> dict[str, Any]:
        return {"units": {name: asdict(unit) for name, unit in self.units.items()}}
