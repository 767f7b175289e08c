"""The crates of a cargo project that may differ from what runs, compiled in the order of their dependencies.

A crate is ours as soon as one of its files is newer than what the user's build made of it, or than what its last patch
was made from, and when it may notice that a crate that it uses is another one now (`unnoticed`). What we made stays
in the workshop with a note of what it was made from, so that only what changed since is compiled again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ipbp.build.cargo import is_library
from ipbp.build.cargo_commands import CrateCommand, crate_commands, file_of
from ipbp.build.codegen_units import CrateObject, built_objects, made_objects
from ipbp.build.command import Command
from ipbp.build.compile import ATTEMPTS, Compiled, Tell
from ipbp.build.compilers_time import next_start
from ipbp.build.crate_changes import (
    edited_since,
    files_of_library,
    is_crate,
    made_from,
    other_variable,
    reason_of,
    refusals_of,
    value_of,
)
from ipbp.build.crate_objects import kept_objects
from ipbp.build.dirty import Dirty, PatchedUnit
from ipbp.build.early_objects import Early, EarlyObjects, remember_changed
from ipbp.build.notes import write_whole
from ipbp.build.places import cache_folder
from ipbp.build.plain import is_end_of
from ipbp.build.producer import source_units
from ipbp.build.rustc_recorder import read_options
from ipbp.build.rustc_replay import END, is_incremental, keep_product, prepare
from ipbp.build.rustc_run import run_rustc
from ipbp.build.snapshot import Snapshot
from ipbp.build.store import Store
from ipbp.build.underway import Underway
from ipbp.build.unnoticed import is_linked_together, is_unnoticed, remember
from ipbp.build.workshop import Workshop
from ipbp.errors import IpbpError, Refused
from ipbp.members import differing, listed

Ending = Callable[[], str]
"""Waits for the end of a compiler: what it said. Only then does what it made count."""
_PATIENCE = 0.05
"""Seconds in which a compiler is started, if it is."""


def rebuild_crates(
    executable: Path,
    image_mtime_ns: int,
    known: Mapping[str, PatchedUnit],
    store: Store,
    tell: Tell,
    colour: bool = False,
    exact: bool = False,
    plain: Container[str] = (),
    turned: Container[str] = (),
    early: Early = lambda row, running, made: None,
    later: Callable[[Ending], None] | None = None,
) -> tuple[Compiled, ...]:
    """New objects of the crates that may differ from what runs; none when nothing was edited. The object of a crate
    is the list of its codegen units' objects (`ipbp.members`).

    `executable`: in one of cargo's folders. `image_mtime_ns`: of the mapped file. `known`: crates that were patched,
    by the path of their root module. `exact`: other crates may have a copy of code that names a line. `plain`:
    crates to compile without optimisation, `turned`: those for which that is another answer than before. `early` is
    told of objects while their compiler runs, also of one that fails. `later` gets what is to be called before the
    program's own object counts: it is given back as soon as it is final. None: it counts at once.

    Errors: `compile-failed` with what rustc printed, also from what `later` got; those of
    `cargo_commands.crate_commands`; `Refused` with those of `crate_changes`; `sources-changing`.
    """
    if is_library(executable) and not known and not turned and not edited_since(executable, image_mtime_ns):
        return ()
    commands = [without_optimisation(row) if row.source in plain else row for row in program_crates(executable)]
    snapshot = Snapshot()
    workshop = workshop_of(commands)
    reasons = {row.stem: reason_of(row, image_mtime_ns, known.get(row.source), snapshot, workshop) for row in commands}
    for row in commands:
        if row.source in turned:
            reasons[row.stem] = reasons[row.stem] or "it is compiled in another way now"
    refusals = refusals_of(commands, reasons, snapshot)
    if refusals:
        raise Refused(refusals)
    if not any(reasons.values()):
        return ()
    found = []
    with contextlib.ExitStack() as alone:
        alone.enter_context(_alone(workshop))
        whole = exact or is_linked_together(commands)

        def is_hidden(row: CrateCommand) -> bool:
            unit = known.get(row.source)
            files, variables = made_from(row.depfile, row.directory, snapshot)
            if whole or other_variable(row, variables):
                return False
            before = None if unit is None else unit.dependencies
            return is_unnoticed(row, before or files, before, image_mtime_ns, snapshot, store, _texts(workshop, row))

        crates = [row for row in commands if is_crate(row)]
        ours: dict[str, _Made] = {}
        users: dict[str, str] = {}

        def running(row: CrateCommand, names: Collection[str]) -> str:
            unit = known.get(row.source)
            if unit is None and not users.get(row.stem):
                users[row.stem] = _built(row, names, image_mtime_ns, workshop, store)
            return users[row.stem] if unit is None else unit.object

        def made_now(row: CrateCommand) -> _Made:
            used = [ours[file_of(path)] for path in row.externs if file_of(path) in ours]
            libraries = {file: workshop.product(made.crate) for file, made in ours.items()}
            seen = EarlyObjects(row, store, partial(running, row), early)
            goes_on = later is not None and row is crates[-1] and _is_linked_last(row)
            made = _brought_up_to_date(row, used, libraries, workshop, store, tell, colour, seen, goes_on)
            if later is not None and made.underway is not None:
                later(partial(_end, made, workshop, alone.pop_all()))
            return made

        at_least = _wanted(crates, reasons, known, lambda row: True)
        first = next(row for row in crates if row.stem in at_least)
        started = next_start()

        def decided() -> dict[str, str]:
            started.wait()  # the compiler comes first
            return _wanted(crates, reasons, known, is_hidden)

        with ThreadPoolExecutor(1) as pool:
            # Who notices an edit is found out while the first crate is compiled, of which that makes no difference:
            # what it is made with is as it was.
            deciding = pool.submit(decided)
            try:
                made_first = made_now(first)
            finally:
                started.set()  # it may be there from before
            wanted = deciding.result()
        for row in crates:
            reason = wanted.get(row.stem, "")
            if not reason:
                continue
            made = made_first if row is first else made_now(row)
            ours[file_of(str(row.product))] = made
            if not row.is_image:  # which others use
                remember(made.files, store, _texts(workshop, row))
            unit = known.get(row.source)
            digest = store.put(made.objects)
            old = None if unit is not None else running(row, made.names)
            dirty = Dirty(_as_command(row), reason, store.get(old) if old else None)
            runs = unit.object if unit is not None else old
            is_alike = digest == runs
            _note_changed(row, runs, made, store)
            row_made = made.files, made.milliseconds, made.messages
            found.append(Compiled(row.source, store.get(digest), digest, *row_made, dirty, is_alike))
        _remember_others(commands, wanted, known, snapshot, workshop, store)
    return tuple(found)


def _note_changed(row: CrateCommand, runs: str | None, made: _Made, store: Store) -> None:
    before, after = listed(store.get(runs).read_bytes()) if runs else None, listed(made.objects)
    if before is not None and after is not None:
        remember_changed(row, differing(before, after))


def _is_linked_last(row: CrateCommand) -> bool:
    """Whether the call of the linker is the last thing that its compiler does, and the objects stay for us then."""
    return row.is_image and row.is_linked_here and len(row.crate_types) == 1 and is_incremental(row.arguments)


def _end(made: _Made, workshop: Workshop, alone: contextlib.ExitStack) -> str:
    """What the compiler said that was not waited for."""
    with alone:
        assert made.underway is not None
        said = made.underway.ended()
        if _linked(made.crate, workshop) != made.linked:
            raise IpbpError(
                "sources-changing",
                f"{made.crate.name} was compiled once more while it was looked at",
                "Try again.",
            )
        _keep(made, workshop)
        return said


def _linked(row: CrateCommand, workshop: Workshop) -> tuple[int, ...]:
    """Tells one call of the linker from another; () when it has not been called, or is still writing."""
    try:
        status = os.stat(workshop.linked(row))
        with open(workshop.linked(row), "rb") as file:
            file.seek(max(0, status.st_size - len(END)))
            return (status.st_ino, status.st_size, status.st_mtime_ns) if file.read() == END else ()
    except OSError:
        return ()


def _wanted(
    crates: Sequence[CrateCommand],
    reasons: Mapping[str, str],
    known: Mapping[str, PatchedUnit],
    is_hidden: Callable[[CrateCommand], bool],
) -> dict[str, str]:
    """The crates to compile, by stem, with the reason. `is_hidden`: whether an edit cannot be noticed by the crates
    that use this one; these are then left as they are. But what is compiled is compiled with the crates as they are
    now, and rustc wants everything that comes together to be made with the same build of a crate (E0460)."""
    by_file = {file_of(str(row.product)): row for row in crates}
    uses = {row.stem: [by_file[file_of(path)] for path in row.externs if file_of(path) in by_file] for row in crates}
    wanted: dict[str, str] = {}
    noticed: set[str] = set()
    outdated: set[str] = set()
    for row in crates:
        cause = next((used.name for used in uses[row.stem] if used.stem in noticed), "")
        reason = reasons[row.stem] or (f"it uses {cause}" if cause else "")
        if reason:
            wanted[row.stem] = reason
        if cause or (reason and not is_hidden(row)):
            noticed.add(row.stem)
        if reason or row.source in known or any(used.stem in outdated for used in uses[row.stem]):
            outdated.add(row.stem)
    for row in reversed(crates):
        if row.stem in wanted:
            for used in uses[row.stem]:
                if used.stem in outdated:
                    wanted.setdefault(used.stem, f"{row.name} is compiled with it")
    return wanted


def _remember_others(
    commands: Sequence[CrateCommand],
    wanted: Mapping[str, str],
    known: Mapping[str, PatchedUnit],
    snapshot: Snapshot,
    workshop: Workshop,
    store: Store,
) -> None:
    """Keep the texts of the libraries that are as they were built, once for each build."""
    for row in commands:
        note = _texts(workshop, row)
        if row.is_image or not is_crate(row) or row.stem in wanted or row.source in known:
            continue
        if snapshot.modified_ns(str(note)) <= snapshot.modified_ns(str(row.depfile)):
            files, _ = made_from(row.depfile, row.directory, snapshot)
            remember({path: snapshot.digest(path) for path in files}, store, note)


def _texts(workshop: Workshop, row: CrateCommand) -> Path:
    return workshop.folder / f"{row.stem}.texts"


def crate_archives(executable: Path) -> tuple[Path, ...]:
    """The libraries of a program, as its sources are now, those of Rust itself, and the objects of the program, of
    which the linker left out what nothing used."""
    commands = program_crates(executable)
    workshop = workshop_of(commands)
    snapshot = Snapshot()
    found = []
    for row in commands:
        if row.is_linked and row.kind in ("lib", "rlib"):
            ours = _files_of_note(row, workshop)
            is_current = ours and all(snapshot.digest(path) == digest for path, digest in ours.items())
            found.append(workshop.product(row) if is_current else row.product)
    compiler = Path(commands[-1].arguments[0])
    done = subprocess.run([compiler, "--print", "target-libdir", *_target(commands[-1])], stdout=subprocess.PIPE)
    folder = Path(os.fsdecode(done.stdout.strip()))
    own = [Path(row.path) for row in _made_of(commands[-1], workshop) if row.path is not None]
    return (*found, *sorted(folder.glob("lib*.rlib")), *own)


def _made_of(program: CrateCommand, workshop: Workshop) -> Sequence[CrateObject]:
    try:
        return made_objects(program, workshop)
    except (OSError, IpbpError):
        return ()  # it was not compiled by us: what it has it has in the image


def program_crates(executable: Path) -> tuple[CrateCommand, ...]:
    """All crates of a program in cargo's folders. Errors: those of `cargo_commands.crate_commands`."""
    return crate_commands(executable, lambda: [unit.directory for unit in source_units(executable)])


def files_of_crates(executable: Path) -> set[str]:
    """All files that the program's crates of one's own are made from, as the last build of each wrote down, the user's
    or ours. Errors: those of `program_crates`."""
    if is_library(executable):
        return set(files_of_library(executable))
    commands = program_crates(executable)
    workshop, snapshot = workshop_of(commands), Snapshot()
    found: set[str] = set()
    for row in filter(is_crate, commands):
        found.add(row.source)
        for depfile in (row.depfile, workshop.outputs(row) / row.depfile.name):
            found.update(made_from(depfile, row.directory, snapshot)[0])
    return found


def without_optimisation(row: CrateCommand) -> CrateCommand:
    """The same crate, with full debug information. What follows the level unless it was said (rustc book, "Codegen
    Options") stays as it was."""
    said = read_options(list(row.arguments))
    kept = [name for name in ("debug-assertions", "overflow-checks") if f"-C {name}" not in said]
    more = ["opt-level=0", "debuginfo=2", *(f"{name}=no" for name in kept)]
    return replace(row, arguments=(*row.arguments, *(word for option in more for word in ("-C", option))))


def crates_of_name(executable: Path, name: str, sources: Container[str]) -> list[CrateCommand]:
    """Crates of the program that have a file of this name, or whose debug information says one of `sources`."""
    commands = program_crates(executable)
    snapshot = Snapshot()
    return [
        row
        for row in commands
        if is_crate(row)
        and (
            os.path.realpath(row.source) in sources
            or any(is_end_of(name, path) for path in made_from(row.depfile, row.directory, snapshot)[0])
        )
    ]


def workshop_of(commands: Sequence[CrateCommand]) -> Workshop:
    """One for each of the user's folders of libraries."""
    return Workshop(cache_folder("crates", hashlib.sha256(os.fsencode(commands[-1].folder)).hexdigest()[:16]))


def _target(row: CrateCommand) -> list[str]:
    triples = read_options(list(row.arguments)).get("--target", [])
    return ["--target", triples[-1]] if triples else []


def _files_of_note(row: CrateCommand, workshop: Workshop) -> dict[str, str]:
    try:
        files: dict[str, str] = json.loads(_note(workshop, row).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return {}
    return files


@dataclass(frozen=True, slots=True)
class _Made:
    """A crate in the workshop. `key`: digest of all that it was made from. `files`: path -> sha256 of its sources.
    `variables`: of the environment that it read, with their values, None for one that is not set. `objects`: their
    list (`ipbp.members`). `underway`: the compiler, when it has not ended yet; `linked`: which call of the linker these
    are the objects of."""

    crate: CrateCommand
    key: str
    files: dict[str, str]
    variables: dict[str, str | None]
    objects: bytes
    messages: str
    milliseconds: float
    underway: Underway | None = None
    linked: tuple[int, ...] = ()

    @property
    def names(self) -> Collection[str]:
        """Of its codegen units."""
        return listed(self.objects) or ()


def _brought_up_to_date(
    row: CrateCommand,
    used: Sequence[_Made],
    libraries: Mapping[str, Path],
    workshop: Workshop,
    store: Store,
    tell: Tell,
    colour: bool,
    seen: EarlyObjects,
    goes_on: bool,
) -> _Made:
    """The crate in the workshop, compiled unless it was made from just these files before. `libraries`: all that were
    made now, by `file_of` of the user's; `used`: those that the crate names itself. `seen` is told of what the
    compiler writes the first time. `goes_on`: its end need not be waited for when its objects are final."""
    kept = _kept(row, used, workshop, store)
    if kept is not None:
        return kept
    tell(f"compiling {row.name}")
    before: dict[str, str] | None = None
    start = time.perf_counter()
    keeps = not is_incremental(row.arguments)
    for _ in range(ATTEMPTS):
        prepare(workshop, row)
        _note(workshop, row).unlink(missing_ok=True)
        # The folder's own time stamp is the file system's clock at this moment.
        os.utime(workshop.objects(row))
        began = workshop.objects(row).stat().st_mtime_ns
        started, folders = next_start(), (workshop.outputs(row), workshop.objects(row))
        underway = Underway(partial(run_rustc, row, workshop, libraries, colour, keeps), folders)
        goes_on, messages = goes_on and not keeps, ""
        linked: tuple[int, ...] = ()
        if before is None:
            started.wait(_PATIENCE)  # the compiler comes first
            seen.expected()
        for paths in underway.written():
            if goes_on and workshop.linked(row) in paths and (linked := _linked(row, workshop)):
                break
            if before is None:
                seen.written(paths)
        if not linked:
            messages = underway.ended()
        keep_product(row, workshop)
        try:
            snapshot = Snapshot()
            files, variables = made_from(workshop.outputs(row) / row.depfile.name, row.directory, snapshot)
            after = {path: snapshot.digest(path) for path in dict.fromkeys([row.source, *files])}
            if after == before or all(snapshot.modified_ns(path) < began for path in after):
                objects = kept_objects(made_objects(row, workshop), _digests(workshop, row), store, seen.there)
                key, milliseconds = _key(row, used, after, variables), (time.perf_counter() - start) * 1000
                if linked:
                    return _Made(row, key, after, variables, objects, "", milliseconds, underway, linked)
                made = _Made(row, key, after, variables, objects, messages, milliseconds)
                _keep(made, workshop)
                return made
        except BaseException as error:
            underway.ended()
            if keeps or not isinstance(error, IpbpError):
                raise
            keeps = True  # rustc did not finish its incremental directory, of which it only warns
        underway.ended()
        before = after
    raise IpbpError(
        "sources-changing",
        f"{row.source} or a file that it includes changed during each of {ATTEMPTS} compiles",
        "Wait until the files are written, then try again.",
    )


def _key(
    row: CrateCommand, used: Sequence[_Made], files: Mapping[str, str], variables: Mapping[str, str | None]
) -> str:
    parts = [*row.arguments, *("=".join(pair) for pair in row.environment), *(made.key for made in used)]
    parts += [f"{path}\0{digest}" for path, digest in sorted(files.items())]
    parts += [repr(pair) for pair in sorted(variables.items())]
    return hashlib.sha256(os.fsencode("\0".join(parts))).hexdigest()


def _note(workshop: Workshop, row: CrateCommand) -> Path:
    return workshop.folder / f"{row.stem}.json"


def _keep(made: _Made, workshop: Workshop) -> None:
    digest = hashlib.sha256(made.objects).hexdigest()
    row = {"key": made.key, "files": made.files, "variables": made.variables, "objects": digest}
    write_whole(_note(workshop, made.crate), json.dumps(row))


def _built(row: CrateCommand, names: Collection[str], image_mtime_ns: int, workshop: Workshop, store: Store) -> str:
    """The digest of what the user's build made of a crate, of which we made units of these names, or ""."""
    objects = built_objects(row, names, image_mtime_ns)
    return "" if objects is None else store.put(kept_objects(objects, _digests(workshop, row), store))


def _digests(workshop: Workshop, row: CrateCommand) -> Path:
    return workshop.folder / f"{row.stem}.digests"


def _kept(row: CrateCommand, used: Sequence[_Made], workshop: Workshop, store: Store) -> _Made | None:
    try:
        kept = json.loads(_note(workshop, row).read_text())
        snapshot, files = Snapshot(), kept["files"]
        # The newest first: if there is one that was edited, it is that.
        for path in sorted(files, key=snapshot.modified_ns, reverse=True):
            if snapshot.digest(path) != files[path]:
                return None
        variables = {name: value_of(row, name) for name in kept["variables"]}
        if _key(row, used, files, variables) != kept["key"]:
            return None
        objects = kept_objects(made_objects(row, workshop), _digests(workshop, row), store)
    except (OSError, ValueError, KeyError, IpbpError):
        return None  # made before by another version, or cleared away: it is made anew
    if hashlib.sha256(objects).hexdigest() != kept["objects"]:
        return None
    return _Made(row, kept["key"], files, variables, objects, "", 0.0)


@contextlib.contextmanager
def _alone(workshop: Workshop) -> Iterator[None]:
    """Two debuggers may work on programs of one target directory."""
    with (workshop.folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _as_command(row: CrateCommand) -> Command:
    return Command(Path(row.directory), Path(row.source), row.product, row.arguments, row.environment)
