"""The objects of a crate, one for each codegen unit: those that we made, and those that the user's build made.

They are in a library, and copies of them in rustc's incremental directory. Which of two files with one name is newer
does not matter here: what runs is proved by memory later.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipbp.archive import NotAnArchive, members
from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.rustc_recorder import read_options
from ipbp.build.workshop import Workshop
from ipbp.errors import IpbpError

OBJECT = ".rcgu.o"
"""How rustc's names of object files end."""
_NUMBERED = re.compile(r".*-cgu\.\d+")
"""The name of a codegen unit in a build that is not incremental."""


@dataclass(frozen=True, slots=True)
class CrateObject:
    """One codegen unit's object, under the unit's name: a file of rustc's, or `content` out of an archive. rustc
    replaces files and does not write into them, so that a file tells by its inode that it is the same."""

    name: str
    path: str | None
    content: bytes = b""

    def read(self) -> bytes:
        return self.content if self.path is None else Path(self.path).read_bytes()


def made_objects(crate: CrateCommand, workshop: Workshop) -> tuple[CrateObject, ...]:
    """What the last replay made. `crate-without-objects`: nothing, or it was not kept. Errors: OSError, when there was
    none."""
    if not crate.is_image:
        return _of_library(workshop.product(crate), crate, workshop.incremental)
    words = workshop.linked(crate).read_bytes().decode("utf-8", "surrogateescape").split("\0")
    files = [os.path.basename(word) for word in words if word.endswith(OBJECT)]
    # A linker is given one object more, the program's choice of an allocator, which is nobody's source.
    session = _session_of({unit_name(file, crate.stem) for file in files}, sessions(crate, workshop.incremental))
    kept = {entry.name: entry.path for entry in os.scandir(workshop.objects(crate))}
    made = {unit_name(file, crate.stem): kept[file] for file in files if file in kept}
    numbered = {name: path for name, path in made.items() if _NUMBERED.match(name)}
    return _some([CrateObject(name, path) for name, path in sorted((session or numbered or made).items())], crate)


def built_objects(crate: CrateCommand, names: Collection[str], image_mtime_ns: int) -> tuple[CrateObject, ...] | None:
    """The objects of the user's own build, as far as it left them and none is newer than the image; None else.

    A library has them; those of a program are gone after the link, but the incremental directory keeps them. `names`:
    of the units that we made of the crate, which tell the program's folder there from that of a library of its name.
    """
    try:
        if not crate.is_image:
            if crate.product.stat().st_mtime_ns > image_mtime_ns:
                return None
            return _of_library(crate.product, crate, None, image_mtime_ns)
        for session in sessions(crate):
            files = session_objects(session)
            if not files.keys().isdisjoint(names) and all(
                os.stat(path).st_mtime_ns <= image_mtime_ns for path in files.values()
            ):
                return tuple(CrateObject(name, path) for name, path in sorted(files.items()))
    except OSError:
        pass  # the user's build is at work
    return None


def _of_library(
    library: Path, crate: CrateCommand, incremental: Path | None, newest_ns: int | None = None
) -> tuple[CrateObject, ...]:
    """The objects of a library, or the files of rustc's incremental directory that they are copies of, if none of
    these is newer than that."""
    with library.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    try:
        rows = {unit_name(name, crate.stem): row for name, row in members(content) if name.endswith(OBJECT)}
    except NotAnArchive as error:
        raise IpbpError(
            "object-malformed", f"{library}: {error}", "The file is damaged or was still being written: build it again."
        ) from error
    session = _session_of(rows, sessions(crate, incremental))
    status = {name: os.stat(path) for name, path in session.items()}
    if session.keys() == rows.keys() and all(
        row.st_size == len(rows[name]) and (newest_ns is None or row.st_mtime_ns <= newest_ns)
        for name, row in status.items()
    ):
        found = [CrateObject(name, path) for name, path in sorted(session.items())]
    else:
        found = [CrateObject(name, None, bytes(row)) for name, row in sorted(rows.items())]
    return _some(found, crate)


def _session_of(made: Collection[str], sessions: Iterable[Path]) -> dict[str, str]:
    """The objects of the session whose units were made, or nothing."""
    for session in sessions:
        files = session_objects(session)
        if files and files.keys() <= set(made):
            return files
    return {}


def sessions(crate: CrateCommand, instead: Path | None = None) -> list[Path]:
    """rustc's folders for this crate in the user's incremental directory, or in the one given; their names hold a
    hash of rustc's own."""
    folders = [instead] if instead else map(Path, read_options(list(crate.arguments)).get("-C incremental", []))
    found = [path for folder in folders for path in folder.glob(f"{crate.name}-*") if path.is_dir()]
    # Of several crates of one name (a library and a program) the newest is the likeliest; the proof is elsewhere.
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def session_objects(session: Path) -> dict[str, str]:
    """The objects of the last finished compile (rustc_incremental, "persist/fs.rs": `s-time-random-hash`)."""
    finished = sorted(path for path in session.glob("s-*-*-*") if not path.name.endswith("-working"))
    if not finished:
        return {}
    return {entry.name: entry.path for entry in os.scandir(finished[-1]) if entry.name.endswith(".o")}


def _some(rows: Sequence[CrateObject], crate: CrateCommand) -> tuple[CrateObject, ...]:
    if not rows:
        raise IpbpError(
            "crate-without-objects",
            f"rustc made no objects for the crate '{crate.name}'",
            "Build it with code generation.",
        )
    return tuple(rows)


def unit_name(name: str, stem: str) -> str:
    """The codegen unit's name alone. `stem`: `app-1f2e` of `app-1f2e.4x3.0k1.rcgu.o`, which has a number of the
    invocation in it, and in the incremental directory the same object is `4x3.o`. Without one it is
    `app-1f2e.app.98ab-cgu.0.rcgu.o`."""
    middle = name.removeprefix(f"{stem}.").removesuffix(OBJECT).removesuffix(".o")
    numbered = _NUMBERED.match(middle)
    return f"{numbered[0] if numbered else middle.partition('.')[0]}.o"
