"""Where ipbp compiles the crates of one of cargo's folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ipbp.build.cargo_commands import CrateCommand


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where the crates of one target directory are compiled: `deps`, `incremental` and `objects` below `folder`. The
    libraries that were made are kept in `made`, for in `deps` the user's may take their place (`in_place`)."""

    folder: Path

    @property
    def deps(self) -> Path:
        return self.folder / "deps"

    @property
    def made(self) -> Path:
        return self.folder / "made"

    @property
    def incremental(self) -> Path:
        return self.folder / "incremental"

    def outputs(self, crate: CrateCommand) -> Path:
        """What `crate.folder` is to the user."""
        name = Path(crate.folder).name
        return self.folder / (name if name == "examples" else "deps")

    def objects(self, crate: CrateCommand) -> Path:
        return self.folder / "objects" / crate.stem

    def linked(self, crate: CrateCommand) -> Path:
        """What the linker of a program was given, each word with a zero byte behind it, and one at the end."""
        return self.objects(crate) / "words"

    def product(self, crate: CrateCommand) -> Path:
        """The library as we made it."""
        return self.made / crate.product.name

    @property
    def linker(self) -> Path:
        return self.folder / "linker"


def profile_folder(crate: CrateCommand) -> Path:
    """The user's folder that the workshop is to the crate."""
    return Path(crate.folder).parent
