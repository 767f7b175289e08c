"""One crate compiled as cargo would, into a folder of ipbp's own, and not linked.

The command is cargo's, word for word, but for where files go, the look of messages, and the linker of a program:
that is a script which keeps the objects that it is given and says that all is well. What rustc knows of the last
compile is in its incremental directory; ours begins as a copy of the user's (rustc replaces those files and never
writes into them, so hard links do), and the first compile is as warm as the user's next one would be, if ours may lie
in the place of the user's (`in_place`).
"""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipbp.archive import NotAnArchive, members
from ipbp.build.cargo_commands import CrateCommand, file_of
from ipbp.build.notes import write_whole
from ipbp.build.rustc_recorder import outputs, read_options
from ipbp.errors import IpbpError

_LINKER = """#!/bin/sh
# Stands in for the linker: keeps the objects of the crate and links nothing.
set -e
for word in "$@"; do
    case $word in
    @*) echo "ipbp: the list of objects came in a file: $word" >&2; exit 1 ;;
    *.rcgu.o) ln -f -- "$word" "$IPBP_OBJECTS/" 2>/dev/null || cp -- "$word" "$IPBP_OBJECTS/" ;;
    esac
done
"""
_OBJECT = ".rcgu.o"
_NUMBERED = re.compile(r".*-cgu\.\d+")
"""The name of a codegen unit in a build that is not incremental."""
_COLOUR = "diagnostic-rendered-ansi"


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

    def product(self, crate: CrateCommand) -> Path:
        """The library as we made it."""
        return self.made / crate.product.name

    @property
    def linker(self) -> Path:
        return self.folder / "linker"


def prepare(workshop: Workshop, crate: CrateCommand) -> None:
    """Make the folders, the linker's stand-in, and a warm incremental directory for this crate."""
    outputs = workshop.outputs(crate)
    for folder in (workshop.deps, workshop.made, outputs, workshop.incremental, workshop.objects(crate)):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in workshop.objects(crate).iterdir():
        left.unlink()
    if not workshop.linker.exists():
        write_whole(workshop.linker, _LINKER, stat.S_IRWXU)
    for user in _sessions(crate):
        ours = workshop.incremental / user.name
        if not ours.exists():
            _copy_by_links(user, ours)


def replay_words(
    crate: CrateCommand,
    workshop: Workshop,
    ours: Mapping[str, Path],
    colour: bool = False,
) -> tuple[str, ...]:
    """The argument vector that compiles the crate into the workshop. `ours`: libraries that are to be used instead
    of the user's, by `cargo_commands.file_of` of the user's file."""
    words = [*_redirected(_as_we_want(crate, workshop, colour), workshop, crate, ours)]
    # Searched as well: what the libraries of ours were compiled with. rustc tells them from the user's by their hash.
    return (*words, "-L", f"dependency={workshop.made}")


def words_in_place(crate: CrateCommand, workshop: Workshop, colour: bool = False) -> tuple[str, ...]:
    """The same when the workshop lies in the place of the user's folder, with `in_place.lay_out` done."""
    return tuple(_as_we_want(crate, workshop, colour))


def _as_we_want(crate: CrateCommand, workshop: Workshop, colour: bool) -> list[str]:
    """The command but for where files are."""
    words = [*_without_linking(crate.arguments, colour)]
    # Debug information in files of its own is nothing that a patch could take along.
    words += ["-C", "split-debuginfo=off"] if "-C split-debuginfo" in read_options(words) else []
    if crate.is_linked_here:
        words += ["-C", f"linker={workshop.linker}", "-C", "linker-flavor=gcc", "-C", "strip=none"]
    return words


def is_optimised_crate(arguments: Sequence[str]) -> bool:
    """Whether rustc is asked to optimise; the last option counts."""
    levels = [*read_options(list(arguments)).get("-C opt-level", ())][-1:]
    return levels != ["0"] and (bool(levels) or "-O" in arguments)


def asks_for_types(arguments: Sequence[str]) -> bool:
    """Whether rustc is asked for debug information of the level that has types; the last option counts."""
    levels = [*read_options(list(arguments)).get("-C debuginfo", ())][-1:]
    return levels in (["2"], ["full"]) or (not levels and "-g" in arguments)


def printed(output: str) -> str:
    """What rustc would print for a human: of its JSON lines the texts of the messages (rustc book, "JSON Output")."""
    found = []
    for line in output.splitlines(keepends=True):
        try:
            row = json.loads(line) if line.startswith("{") else line
        except ValueError:
            row = line
        found.append(row if isinstance(row, str) else row.get("rendered") or "")
    return "".join(found)


def replay_environment(crate: CrateCommand, workshop: Workshop, seen_as: Path | None = None) -> dict[str, str]:
    """`seen_as`: where the compiler finds the workshop, if that is another place."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RUSTC_WRAPPER", "CARGO_MAKEFLAGS")}
    # Under the name by which rustc has its files: there are no hard links from one mount to another.
    objects = workshop.objects(crate)
    objects = objects if seen_as is None else seen_as / objects.relative_to(workshop.folder)
    return {**kept, **dict(crate.environment), "IPBP_OBJECTS": str(objects)}


def keep_product(crate: CrateCommand, workshop: Workshop) -> None:
    """Keep the library that was just made, with what is only for compilers of it."""
    for name in outputs(read_options(list(crate.arguments))):
        made = workshop.outputs(crate) / name
        if name.endswith((".rlib", ".rmeta")) and made.exists():
            put_link(made, workshop.made / name)


def profile_folder(crate: CrateCommand) -> Path:
    """The user's folder that the workshop is to the crate."""
    return Path(crate.folder).parent


@dataclass(frozen=True, slots=True)
class CrateObject:
    """One codegen unit's object, under the unit's name: a file of rustc's, or `content` out of an archive. rustc
    replaces files and does not write into them, so that a file tells by its inode that it is the same."""

    name: str
    path: Path | None
    content: bytes = b""

    def read(self) -> bytes:
        return self.content if self.path is None else self.path.read_bytes()


def made_objects(crate: CrateCommand, workshop: Workshop) -> tuple[CrateObject, ...]:
    """What the last replay made. `crate-without-objects`."""
    if not crate.is_image:
        return _of_library(workshop.product(crate), crate, workshop.incremental)
    made = {_unit_name(path.name, crate): path for path in workshop.objects(crate).iterdir()}
    # A linker is given one object more, the program's choice of an allocator, which is nobody's source.
    session = _session_of(made, _sessions(crate, workshop.incremental))
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
        for session in _sessions(crate):
            files = _session_objects(session)
            if not files.keys().isdisjoint(names) and all(
                path.stat().st_mtime_ns <= image_mtime_ns for path in files.values()
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
        rows = {_unit_name(name, crate): row for name, row in members(content) if name.endswith(_OBJECT)}
    except NotAnArchive as error:
        raise IpbpError(
            "object-malformed", f"{library}: {error}", "The file is damaged or was still being written: build it again."
        ) from error
    session = _session_of(rows, _sessions(crate, incremental))
    status = {name: path.stat() for name, path in session.items()}
    if session.keys() == rows.keys() and all(
        row.st_size == len(rows[name]) and (newest_ns is None or row.st_mtime_ns <= newest_ns)
        for name, row in status.items()
    ):
        found = [CrateObject(name, path) for name, path in sorted(session.items())]
    else:
        found = [CrateObject(name, None, bytes(row)) for name, row in sorted(rows.items())]
    return _some(found, crate)


def _session_of(made: Collection[str], sessions: Iterable[Path]) -> dict[str, Path]:
    """The objects of the session whose units were made, or nothing."""
    for session in sessions:
        files = _session_objects(session)
        if files and files.keys() <= set(made):
            return files
    return {}


def _without_linking(arguments: Sequence[str], colour: bool) -> Iterator[str]:
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--json", "--diagnostic-width"):
            # Some of what cargo wants to be told counts for rustc as another way to compile, and what it knows of the
            # last compile as void.
            wanted = (value if equals else next(words)).split(",")
            wanted = [row for row in wanted if row != _COLOUR] + [_COLOUR] * colour
            if name == "--json":
                yield f"--json={','.join(wanted)}"
        elif word == "-C":
            option = next(words)
            if not option.startswith(("linker=", "link-arg", "strip=", "linker-flavor=")):
                yield from ("-C", option)
        else:
            yield word


def _redirected(
    arguments: Sequence[str], workshop: Workshop, crate: CrateCommand, ours: Mapping[str, Path]
) -> Iterator[str]:
    words = iter(arguments)
    for word in words:
        if word == "--out-dir":
            next(words)
            yield from ("--out-dir", str(workshop.outputs(crate)))
        elif word == "-C":
            option = next(words)
            yield from ("-C", f"incremental={workshop.incremental}" if option.startswith("incremental=") else option)
        elif word == "--extern":
            name, _, path = next(words).partition("=")
            yield from ("--extern", f"{name}={_ours(path, ours)}" if path else name)
        else:
            yield word


def _ours(path: str, ours: Mapping[str, Path]) -> str:
    replacement = ours.get(file_of(path))
    return path if replacement is None else f"{file_of(str(replacement))}{Path(path).suffix}"


def _sessions(crate: CrateCommand, instead: Path | None = None) -> list[Path]:
    """rustc's folders for this crate in the user's incremental directory, or in the one given; their names hold a
    hash of rustc's own."""
    folders = [instead] if instead else map(Path, read_options(list(crate.arguments)).get("-C incremental", []))
    found = [path for folder in folders for path in folder.glob(f"{crate.name}-*") if path.is_dir()]
    # Of several crates of one name (a library and a program) the newest is the likeliest; the proof is elsewhere.
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _session_objects(session: Path) -> dict[str, Path]:
    """The objects of the last finished compile (rustc_incremental, "persist/fs.rs": `s-time-random-hash`)."""
    finished = sorted(path for path in session.glob("s-*-*-*") if not path.name.endswith("-working"))
    return {path.name: path for path in finished[-1].glob("*.o")} if finished else {}


def put_link(source: Path | str, target: Path) -> None:
    """A hard link in the place of what is there; a copy where there are no hard links."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    _link_or_copy(str(source), str(temporary))
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # rename(2) leaves it when both are one file


def _copy_by_links(source: Path, target: Path) -> None:
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        shutil.copytree(source, temporary, copy_function=_link_or_copy)
        os.replace(temporary, target)
    except (OSError, shutil.Error):
        # The user's build is at work there, or the disk is full: a cold start is slower and nothing else.
        shutil.rmtree(temporary, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _some(rows: Sequence[CrateObject], crate: CrateCommand) -> tuple[CrateObject, ...]:
    if not rows:
        raise IpbpError(
            "crate-without-objects",
            f"rustc made no objects for the crate '{crate.name}'",
            "Build it with code generation.",
        )
    return tuple(rows)


def _unit_name(name: str, crate: CrateCommand) -> str:
    """The codegen unit's name alone: `app-1f2e.4x3.0k1.rcgu.o` has a number of the invocation in it, and in the
    incremental directory the same object is `4x3.o`. Without one it is `app-1f2e.app.98ab-cgu.0.rcgu.o`."""
    middle = name.removeprefix(f"{crate.stem}.").removesuffix(_OBJECT).removesuffix(".o")
    numbered = _NUMBERED.match(middle)
    return f"{numbered[0] if numbered else middle.partition('.')[0]}.o"
