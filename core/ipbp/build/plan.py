"""Where new objects come from, in the order that is tried, and the way from there to the objects themselves.

First what the user named; then what ipbp.toml says; then cargo, for a program in its folders; then a compilation
database near the program or its sources; then what the debug information records. Whatever it is, only the units
that are in the running image count, where its debug information tells which these are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from ipbp.build.cargo import build_folder
from ipbp.build.command import Command
from ipbp.build.compile import Compiled, Tell, compile_units
from ipbp.build.compile_commands import find_databases, given_database, read_database
from ipbp.build.config import OwnBuild, find_config, read_config
from ipbp.build.crates import Ending, crate_archives, rebuild_crates
from ipbp.build.dirty import Dirty, PatchedUnit, dirty
from ipbp.build.early_objects import Early
from ipbp.build.entries import sorted_entries, undescribed
from ipbp.build.own_build import Part, run_own_build
from ipbp.build.producer import SourceUnit, include_folders, source_units
from ipbp.build.reconstruct import command_from_producer
from ipbp.build.store import Store
from ipbp.build.trust import require_agreement
from ipbp.errors import IpbpError


class Origin(Enum):
    DATABASE = "compile_commands.json"
    OWN_BUILD = "ipbp.toml"
    PRODUCER = "debug information"
    CARGO = "cargo"
    PATCH_FILE = "a patch file"


@dataclass(frozen=True, slots=True)
class Commands:
    """How the image's units are compiled. `file`: the database or ipbp.toml. `units`: of the image, empty when its
    debug information does not tell. `own`: the project's build command, then `commands` is empty. `outside`: how
    sources are compiled that the image was not built from; `undescribed`: those of them that may be in it all the same,
    for want of debug information of their own; `vanished`: units whose source is gone. `notes`: what the
    user should know. `cargo`: the program, when cargo built it; cargo is asked for the commands when they are needed.
    """

    commands: tuple[Command, ...]
    origin: Origin
    file: Path | None
    units: tuple[SourceUnit, ...]
    own: OwnBuild | None = None
    outside: tuple[Command, ...] = ()
    undescribed: tuple[Command, ...] = ()
    vanished: tuple[SourceUnit, ...] = ()
    notes: tuple[str, ...] = ()
    cargo: Path | None = None


def find_commands(
    executable: Path,
    sources_hint: Sequence[Path] = (),
    build_dir: Path | None = None,
    compile_commands: Path | None = None,
    debug_file: Path | None = None,
) -> Commands:
    """How the units of the running image are compiled.

    `executable`: its path, from where the search goes upwards. `debug_file`: a path that opens the file with its
    debug information, when that is a separate one or `executable` was replaced meanwhile. `sources_hint`: more folders
    to search from. `build_dir` and `compile_commands`: what the user named; nothing else is tried then. `no-commands`
    with every reason.
    """
    named = compile_commands or build_dir
    if named is not None:
        file = given_database(named)
        return _of_database(file, read_database(file), _units_if_readable(debug_file or executable), executable)
    if build_folder(executable) is not None and find_config([executable.parent, *sources_hint]) is None:
        return Commands((), Origin.CARGO, None, (), cargo=executable)
    units = source_units(debug_file or executable)
    folders = [executable.parent, *sources_hint, *_folders(units)]
    found = find_config(folders)
    if found is not None:
        config = read_config(found)
        if config.compile_commands is not None:
            file = given_database(config.compile_commands)
            return _of_database(file, read_database(file), units, executable)
        if config.own is not None:
            return Commands((), Origin.OWN_BUILD, found, units, config.own)
    for file in find_databases(executable, folders[1:]):
        commands = _of_database(file, read_database(file), units, executable)
        if commands.commands:
            return commands
    return _of_debug_information(debug_file or executable, units)


@dataclass(frozen=True, slots=True)
class Target:
    """One loaded image and how its units are compiled. `mtime_ns`: of the mapped file. `known`: its units that were
    patched, by source path. `has`: whether a unit that no debug information describes is in the image. `flags`: more
    flags, by source path; `turned`: sources for which these are others now. `early` is told of crates' objects while
    their compilers run, `expect` of the units of C and C++ that will be compiled, `later`: see
    `crates.rebuild_crates`."""

    commands: Commands
    mtime_ns: int
    known: Mapping[str, PatchedUnit]
    has: Callable[[Command], bool] = lambda command: True
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    turned: frozenset[str] = frozenset()
    early: Early = lambda row, running, made: None
    expect: Callable[[Sequence[Dirty]], None] = lambda rows: None
    later: Callable[[Ending], None] | None = None

    @property
    def rows(self) -> tuple[Command, ...]:
        """Of the image, sources that an earlier patch brought in: these are as good as the image's own, and those
        that it may have."""
        brought = (row for row in self.commands.outside if str(row.source) in self.known)
        return tuple(dict.fromkeys((*self.commands.commands, *brought, *self.commands.undescribed)))

    def dirty(self) -> list[Dirty]:
        """The rows that may differ from what runs."""
        found = [] if self.commands.own else dirty(self.rows, self.mtime_ns, self.known, turned=self.turned)
        doubtful = {row for row in self.commands.undescribed if str(row.source) not in self.known}
        return [row for row in found if row.command not in doubtful or self.has(row.command)]


def rebuild(
    targets: Sequence[Target], store: Store, tell: Tell, colour: bool = False, exact: bool = False
) -> tuple[tuple[Compiled, ...], ...]:
    """For each image the new objects of its units that may differ from what runs; none when nothing was edited. What
    is compiled in one way for several images is compiled once. `exact`: lines of panics count, too.

    Errors: those of `trust.require_agreement`, `compile.compile_units`, `own_build.run_own_build` and
    `crates.rebuild_crates`.
    """
    for target in targets:
        require_agreement(target.rows, target.commands.own)
    wanted = [target.dirty() for target in targets]
    for target, rows in zip(targets, wanted, strict=True):
        if rows:
            target.expect(rows)
    by_flags: dict[tuple[str, ...], dict[Command, Dirty]] = {(): {}}
    for target, rows in zip(targets, wanted, strict=True):
        for row in rows:
            by_flags.setdefault(target.flags.get(str(row.command.source), ()), {})[row.command] = row
    by_command: dict[Command, Compiled] = {}
    for flags, distinct in by_flags.items():
        compiled = compile_units(list(distinct.values()), store, tell, colour, flags)
        by_command.update((row.dirty.command, row) for row in compiled)
    built = _own_builds(targets, store, tell)
    # What is not waited for keeps others out of cargo's folder, this request's as well.
    is_alone = sum(target.commands.cargo is not None for target in targets) == 1
    for number, target in enumerate(targets):
        if target.commands.cargo is not None:
            built[number] = rebuild_crates(
                target.commands.cargo,
                target.mtime_ns,
                target.known,
                store,
                tell,
                colour,
                exact,
                target.flags,
                target.turned,
                target.early,
                target.later if is_alone else None,
            )
    return tuple(
        built[number] if number in built else tuple(replace(by_command[row.command], dirty=row) for row in rows)
        for number, rows in enumerate(wanted)
    )


def _own_builds(targets: Sequence[Target], store: Store, tell: Tell) -> dict[int, tuple[Compiled, ...]]:
    """The objects of the targets that the project's own build makes, by row; each build runs once."""
    rows: dict[OwnBuild, list[int]] = {}
    for number, target in enumerate(targets):
        if target.commands.own is not None:
            rows.setdefault(target.commands.own, []).append(number)
    found: dict[int, tuple[Compiled, ...]] = {}
    for own, numbers in rows.items():
        parts = [_part(targets[number]) for number in numbers]
        found.update(zip(numbers, run_own_build(own, parts, store, tell), strict=True))
    return found


def _part(target: Target) -> Part:
    sources = [unit.source for unit in target.commands.units if unit.source.is_absolute()]
    return Part(sources, target.mtime_ns, target.known)


def archives_of(commands: Commands) -> tuple[Path, ...]:
    """Archives of which the linker took only what the program needed then. Call it after `rebuild`."""
    return crate_archives(commands.cargo) if commands.cargo is not None else ()


def _units_if_readable(file: Path) -> tuple[SourceUnit, ...]:
    # A database that the user named is the way out of debug information that cannot be read.
    try:
        return source_units(file)
    except IpbpError as error:
        if error.code != "debug-information-malformed":
            raise
        return ()


def _of_database(file: Path, rows: Sequence[Command], units: tuple[SourceUnit, ...], executable: Path) -> Commands:
    note = f"{executable.name} has no readable debug information: every source of {file} counts as a part of it"
    entries = sorted_entries(rows, units, executable)
    return Commands(
        commands=entries.image,
        origin=Origin.DATABASE,
        file=file,
        units=units,
        outside=entries.outside,
        undescribed=undescribed(entries.outside),
        vanished=entries.vanished,
        notes=() if units else (note,),
    )


def _of_debug_information(file: Path, units: tuple[SourceUnit, ...]) -> Commands:
    commands = []
    reasons: dict[str, None] = {}
    folders = include_folders(file) if units else {}
    for unit in units:
        answer = command_from_producer(unit, folders.get(unit, ()))
        if answer.command is not None:
            commands.append(answer.command)
        else:
            reasons[answer.reason] = None
    if not commands:
        why = "; ".join(list(reasons)[:3]) or f"{file} has no debug information"
        raise IpbpError(
            "no-commands",
            f"nothing says how the program's sources are compiled: no compile_commands.json was found, and {why}",
            "Let the build write it (`bear -- make`, cmake -DCMAKE_EXPORT_COMPILE_COMMANDS=ON), or build with gcc -g.",
        )
    notes = tuple(dict.fromkeys(note for command in commands for note in command.notes))
    left_out = (f"not recompiled when edited: {'; '.join(reasons)}",) if reasons else ()
    return Commands(tuple(commands), Origin.PRODUCER, None, units, notes=(*notes, *left_out))


def _folders(units: Sequence[SourceUnit]) -> list[Path]:
    """Folders that the units come from, each once."""
    folders = dict.fromkeys([unit.directory for unit in units] + [unit.source.parent for unit in units])
    return [folder for folder in folders if folder.is_absolute() and folder.is_dir()]
