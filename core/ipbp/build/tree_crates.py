"""The crates of Rust in a build tree, by the objects that cargo's target folder has of them; cargo is not asked.

A library has its objects in its `.rlib`. Those of a program or `cdylib` rustc removes after the link; what is left of
them are the copies in its incremental folder, or the objects themselves after `-C save-temps`. rustc's names of
crates have a hash of their settings in them (cargo, "core/compiler/build_runner"): one name in two trees is one crate.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ipbp.build.codegen_units import OBJECT, session_objects, unit_name

_INCREMENTAL = "incremental"


@dataclass(frozen=True, slots=True)
class TreeCrate:
    """`name`: of the crate. `units`: each codegen unit's object, as a file or as its bytes."""

    name: str
    units: Mapping[str, Path | memoryview]

    def contents(self) -> Iterator[tuple[str, Path | memoryview]]:
        """In the order of their names."""
        return iter(sorted(self.units.items(), key=lambda row: row[0]))


@dataclass(slots=True)
class CratesFound:
    """What was found so far."""

    _objects: dict[str, dict[str, Path | memoryview]] = field(default_factory=dict)  # by the name with the hash
    _folders: dict[str, Path] = field(default_factory=dict)

    def take(self, path: Path, name: str) -> bool:
        """Whether this object, at `name` in the tree, is one of a crate; it is noted then."""
        folder = path.parent.parent
        if folder.parent.name == _INCREMENTAL and path.parent.name.startswith("s-"):
            self._folders[str(Path(name).parent.parent)] = folder
            return True
        if not path.name.endswith(OBJECT):
            return False
        stem = path.name.partition(".")[0]
        self._objects.setdefault(stem, {}).setdefault(unit_name(path.name, stem), path)
        return True

    def take_members(self, members: Mapping[str, memoryview]) -> Mapping[str, memoryview]:
        """Notes the objects of crates in an archive; the others. A crate may be in several, always as it is."""
        found: dict[str, dict[str, Path | memoryview]] = {}
        for name, content in members.items():
            if name.endswith(OBJECT):
                stem = name.partition(".")[0]
                found.setdefault(stem, {})[unit_name(name, stem)] = content
        for stem, units in found.items():
            self._objects.setdefault(stem, units)
        return {name: content for name, content in members.items() if not name.endswith(OBJECT)}

    def crates(self) -> dict[str, TreeCrate]:
        """All, by what is one crate's in every tree."""
        found = {stem: TreeCrate(stem.rpartition("-")[0] or stem, units) for stem, units in self._objects.items()}
        for place, folder in self._folders.items():
            units = {name: Path(path) for name, path in session_objects(folder).items()}
            name = folder.name.rpartition("-")[0]
            is_known = any(crate.name == name and units.keys() <= crate.units.keys() for crate in found.values())
            if units and not is_known:
                found[place] = TreeCrate(name, units)
        return found


def mapped(path: Path) -> memoryview:
    """The file's content, read as it is needed."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
