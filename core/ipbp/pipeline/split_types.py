"""Where the halves of units are that a build with `split-debuginfo` keeps out of the program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.elffile import ELFFile

from ipbp.build.debug_sections import section_content
from ipbp.build.split_package import Package, package_of
from ipbp.formats.debug_split import Skeleton, Split

_SECTIONS = ("debug_info", "debug_abbrev", "debug_str", "debug_str_offsets")


def split_units(debug_file: Path) -> Split:
    """For the units of a program, or of the objects that it was linked from. `debug_file`: as for `package_of`. The
    program's package is asked, then the file that a unit names; whether that is the very half, its number tells."""
    place = package_of(debug_file)
    package = Package(place) if place is not None else None

    def find(skeleton: Skeleton) -> Mapping[str, bytes] | None:
        # Cleared away, or written anew this moment: as good as none.
        try:
            packed = package.sections(skeleton.identity) if package is not None else None
            found = packed or _of_file(Path(skeleton.directory, skeleton.name))
        except (OSError, ELFError, DWARFError, ValueError):
            return None
        return {f".{name}": content for name, content in found.items() if content is not None}

    return find


def _of_file(path: Path) -> Mapping[str, bytes | None]:
    with path.open("rb") as file:
        elf = ELFFile(file)
        return {name: section_content(elf, f"{name}.dwo") for name in _SECTIONS}
