"""Which translation units were edited, and their new objects: from a build, or the two objects that a user named."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from pathlib import Path

import numpy as np

from ipbp.build.command import Command, is_optimised
from ipbp.build.compile import Compiled, compile_units
from ipbp.build.crates import Ending
from ipbp.build.dirty import Dirty
from ipbp.build.entries import of_files
from ipbp.build.plan import Commands, Target, archives_of, find_commands, rebuild
from ipbp.build.rustc_replay import is_optimised_crate
from ipbp.build.store import Store
from ipbp.errors import IpbpError, Refusal, Refused
from ipbp.formats.elf_archive import read_unit
from ipbp.formats.elf_module import LoadedModule
from ipbp.formats.elf_process import LoadedProcess
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import UNDEFINED, Binding, BlockKind, LinkGraph
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows
from ipbp.pipeline.ahead import Ahead
from ipbp.pipeline.deopt import ways
from ipbp.pipeline.homes import has_undescribed, images_by_memory, images_by_symbols, patchable
from ipbp.pipeline.meanwhile import read_meanwhile
from ipbp.pipeline.record import Record, UnitRecord
from ipbp.pipeline.request import Request
from ipbp.pipeline.stored import graph_of, members_that_differ, read_stored
from ipbp.stages.branches import with_local_branches


@dataclass(frozen=True, slots=True)
class Edited:
    """`name`: the unit's key in the journal, its source path where that is known. `digest`: of the new object in the
    store. `old_object`: a file that may be the object that was linked, still to be proved. `dependencies`: path ->
    sha256 of what the new object was made from. `image`: the one that the unit is a part of. `is_crate`: it is a Rust
    crate. `is_optimised`: its compiler was asked to optimise, or that is not known. `wanted`: of a crate, the names
    that others of the program's crates use; else None, for it is not known. `dirty`: how it was compiled, None for an
    object that the user named. `members`: names of the crate's objects that are in `new`; the others are as they run.
    None for all. `flags`: with which the user wants it compiled, beside those of its command. `is_newcomer`: the image
    was built without it."""

    name: str
    new: LinkGraph
    digest: str
    old_object: Path | None
    dependencies: dict[str, str]
    image: LoadedImage
    is_crate: bool = False
    is_optimised: bool = True
    wanted: Names | None = None
    dirty: Dirty | None = None
    members: frozenset[str] | None = None
    flags: tuple[str, ...] = ()
    is_newcomer: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """A loaded image and how its units are compiled."""

    module: LoadedModule
    commands: Commands

    @property
    def mtime_ns(self) -> int:
        """Of the mapped file."""
        return os.stat(self.module.opened_as or self.module.mapped.path).st_mtime_ns

    def archives(self) -> tuple[Path, ...]:
        """Of the libraries that the image was linked from, where that is known."""
        return archives_of(self.commands)


@dataclass(frozen=True, slots=True)
class EditedUnits:
    """`built`: how the project is built, () when the user named the objects. `alike`: crates that came out as they run,
    though one that they use is edited, to be read when that matters. `ahead`: what is known of
    them already. `same`: what to say when nothing differs, "" for what is said of each unit then."""

    units: tuple[Edited, ...]
    notes: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    built: tuple[Built, ...] = ()
    alike: tuple[Callable[[], Edited], ...] = ()
    ahead: Ahead = field(default_factory=Ahead)
    same: str = ""


def edited_units(
    request: Request,
    process: LoadedProcess,
    store: Store,
    tell: Callable[[str], None],
    later: Callable[[Ending], None] | None = None,
) -> EditedUnits:
    """All units whose files may differ from what runs; the diff then tells which really do. `later` gets what is to be
    called before they count; without it they count at once."""
    if request.objects is not None:
        return _given(*request.objects, request, process, store)
    built, notes = buildable(request, process)
    chosen = ways(built, request.record, request.plain, request.fast)
    with read_meanwhile([row.module for row in built], process, request.record, store) as meanwhile:
        targets = [
            Target(
                row.commands,
                row.mtime_ns,
                request.record.units(row.module.key),
                partial(_has, row.module),
                chosen.flags,
                chosen.turned,
                partial(meanwhile.crate, row.module),
                partial(meanwhile.units, row.module),
                later,
            )
            for row in built
        ]

        def told(line: str) -> None:
            meanwhile.images()
            tell(line)

        compiled = rebuild(targets, store, told, request.colour, request.exact)
    units: list[Edited] = []
    alike: list[Callable[[], Edited]] = []
    refusals: list[Refusal] = []
    crates = {unit.source for row, found in zip(built, compiled, strict=True) if row.commands.cargo for unit in found}
    for row, modules, described in _homes(built, compiled, request.record):
        if row.source in crates:
            if row.is_alike:
                alike.append(partial(_whole_crate, row, modules[0].image, store))
            else:
                units.append(_crate(row, modules[0].image, request, store, chosen.flags.get(row.source, ())))
            continue
        found, refused = as_edited([row], [module.image for module in modules], described)
        units += [replace(unit, flags=chosen.flags.get(unit.name, ())) for unit in found]
        refusals += refused
    wanted = used_names([unit.new for unit in units if unit.is_crate])
    units = [replace(unit, wanted=wanted) if unit.is_crate else unit for unit in units]
    warnings = {row.messages.rstrip(): None for rows in compiled for row in rows if row.messages.strip()}
    return EditedUnits(tuple(units), (*notes, *warnings), tuple(refusals), tuple(built), tuple(alike), meanwhile.ahead)


def used_names(graphs: Sequence[LinkGraph]) -> Names:
    """The names that any of these takes from elsewhere."""
    tables = [graph.symbols.name.take(np.flatnonzero(graph.symbols.block == UNDEFINED)).rows for graph in graphs]
    return Names(reduce(ByteRows.followed_by, tables)) if tables else Names.of(())


def uses(unit: Edited, names: Container[str]) -> bool:
    """Whether the unit takes one of these names from elsewhere."""
    symbols = unit.new.symbols
    return any(name in names for name in symbols.name.take(np.flatnonzero(symbols.block == UNDEFINED)))


def compiled_again(
    edited: EditedUnits,
    sources: Container[str],
    flags: Callable[[LinkGraph], tuple[str, ...]],
    store: Store,
    tell: Callable[[str], None],
) -> EditedUnits | None:
    """The units again, those of `sources` compiled with more flags for C, by the object that they are now. None when
    none of them is one to compile. Errors: those of `compile_units`."""
    chosen = {unit.name: unit for unit in edited.units if unit.name in sources and unit.dirty and not unit.is_crate}
    by_flags: dict[tuple[str, ...], list[Dirty]] = {}
    for unit in chosen.values():
        if unit.dirty is not None:
            by_flags.setdefault((*unit.flags, *flags(unit.new)), []).append(unit.dirty)
    if not chosen:
        return None
    compiled: dict[str, Compiled] = {}
    notes = list(edited.notes)
    for added, rows in by_flags.items():
        compiled |= {row.source: row for row in compile_units(rows, store, tell, flags=added)}
        notes += [f"{row.command.source.name} was compiled with {' '.join(added)} for this patch" for row in rows]
    units = []
    for unit in edited.units:
        row = compiled.get(unit.name)
        if row is not None:
            graph = with_local_branches(read_unit(row.object.read_bytes(), row.source))
            unit = replace(unit, new=graph, digest=row.digest, dependencies=row.dependencies)
        units.append(unit)
    return replace(edited, units=tuple(units), notes=tuple(notes))


def _crate(row: Compiled, image: LoadedImage, request: Request, store: Store, flags: tuple[str, ...] = ()) -> Edited:
    """A crate with those of its objects that may not be what runs. Of an optimised one, and where functions have
    copies, with all of them: the copies are told apart by what they have in common."""
    old, arguments = row.dirty.old_object, row.dirty.command.arguments
    known = request.record.units(image.key).get(row.source)
    is_optimised = is_optimised_crate(arguments)
    unit = crate_unit(row.source, row.digest, old, row.dependencies, image, is_optimised, flags, known, store)
    return replace(unit, dirty=row.dirty)


def crate_unit(
    name: str,
    digest: str,
    old: Path | None,
    dependencies: dict[str, str],
    image: LoadedImage,
    is_optimised: bool,
    flags: tuple[str, ...],
    known: UnitRecord | None,
    store: Store,
) -> Edited:
    """The same of the crate's list in the store. `known`: the crate in the record."""
    was_plain = bool(flags or (known is not None and known.flags))  # on one side only, perhaps
    members, level = None, was_plain or is_optimised
    if not level:
        if known is not None and known.object and known.members is not None:
            members = members_that_differ(known.object, digest, store, known.members)
        elif known is None and old is not None:
            members = members_that_differ(old.stem, digest, store)
    graph = with_local_branches(read_stored(digest, store, name, members))
    unit = Edited(name, graph, digest, old, dependencies, image, True, level, None, None, members, flags)
    return whole(unit, store) if members is not None and _has_copies(graph, image) else unit


def _whole_crate(row: Compiled, image: LoadedImage, store: Store) -> Edited:
    """A crate with all of its objects."""
    old, level = row.dirty.old_object, is_optimised_crate(row.dirty.command.arguments)
    graph = with_local_branches(read_stored(row.digest, store, row.source))
    return Edited(row.source, graph, row.digest, old, row.dependencies, image, True, level, dirty=row.dirty)


def _has_copies(graph: LinkGraph, image: LoadedImage) -> bool:
    """Whether the image has several functions of the name of a local one of these."""
    symbols = graph.symbols
    rows = np.flatnonzero((symbols.block >= 0) & (symbols.binding == Binding.LOCAL) & symbols.name.are_given())
    rows = rows[graph.blocks.kind[symbols.block[rows]] == BlockKind.CODE]
    which, _row = image.symbols.by_name.pairs(symbols.name.take(rows))
    return bool((np.bincount(which, minlength=1) > 1).any())


def whole(unit: Edited, store: Store) -> Edited:
    """A crate with all of its objects."""
    graph = with_local_branches(read_stored(unit.digest, store, unit.name))
    return replace(unit, new=graph, members=None)


def as_edited(
    compiled: Iterable[Compiled], images: Sequence[LoadedImage], described: Container[str] = ()
) -> tuple[tuple[Edited, ...], tuple[Refusal, ...]]:
    """The new objects as graphs, and why some cannot be read. `images`: of which they may be parts; of several their
    symbols choose. `described`: keys of those whose debug information names other units."""
    units: list[Edited] = []
    refusals: list[Refusal] = []
    for row in compiled:
        try:
            graph = with_local_branches(graph_of(row.digest, row.object, row.source))
            homes = [image for image in images if image.key not in described or has_undescribed(image, graph)]
            if len(images) > 1:
                homes = images_by_symbols(graph, homes, row.source)
            for image in homes:
                _require_format_of(image, graph, row.source)
        except Refused as refused:
            refusals.extend(refused.refusals)
            continue
        old, level = row.dirty.old_object, is_optimised(row.dirty.command)
        units += [
            Edited(row.source, graph, row.digest, old, row.dependencies, image, is_optimised=level, dirty=row.dirty)
            for image in homes
        ]
    return tuple(units), tuple(refusals)


def buildable(request: Request, process: LoadedProcess) -> tuple[list[Built], list[str]]:
    """The images of which it is known how they are compiled, with notes for the user.

    Errors: those of `find_commands`, when it is known of none.
    """
    found: list[Built] = []
    notes: dict[str, None] = {}
    first: IpbpError | None = None
    for module in patchable(process):
        try:
            commands = find_commands(
                Path(request.description.executable if module.is_executable else module.mapped.path),
                build_dir=request.build_dir,
                compile_commands=request.compile_commands,
                debug_file=Path(module.debug_file or module.mapped.path),
            )
        except IpbpError as error:
            if error.code not in ("no-commands", "debug-information-malformed"):
                raise
            first = first or error
            continue
        if commands.undescribed:
            commands = replace(commands, undescribed=of_files(commands.undescribed, module.image.symbols.files))
        found.append(Built(module, commands))
        if commands.units or module.is_executable:
            notes.update(dict.fromkeys(commands.notes))
    if not found and first is not None:
        raise first
    named = _named(found)
    return [replace(row, commands=_without(row.commands, named)) for row in found], list(notes)


def _without(commands: Commands, sources: Container[str]) -> Commands:
    """What another loaded image was built from is no new source of this one."""
    return replace(commands, outside=tuple(row for row in commands.outside if str(row.source) not in sources))


def _named(built: Iterable[Built]) -> set[str]:
    """Sources that the debug information of some image names."""
    return {str(command.source) for row in built if row.commands.units for command in row.commands.commands}


def _has(module: LoadedModule, command: Command) -> bool:
    """Whether the object that the build left is a part of the image, though no debug information says so. True where
    the build left none: the new one will tell."""
    if command.output is None or not command.output.is_file():
        return True
    try:
        return has_undescribed(module.image, read_unit(command.output.read_bytes(), str(command.output)))
    except Refused:
        return True  # of the new object it is said why


_Home = tuple[Compiled, list[LoadedModule], set[str]]


def _homes(built: Sequence[Built], compiled: Sequence[Sequence[Compiled]], record: Record) -> list[_Home]:
    """Each new object with the modules that it may be a part of: the one that was patched with it before or whose debug
    information names its source, or all whose debug information may leave it out, unless it is surely another one's;
    and the keys of those that have debug information, which is of other units."""
    rows: list[_Home] = []
    doubtful: dict[tuple[str, str], _Home] = {}
    named = _named(built).union(*record.images.values())
    for image, objects in zip(built, compiled, strict=True):
        undescribed = {str(command.source) for command in image.commands.undescribed}
        is_described = bool(image.commands.units or image.commands.cargo)
        known = record.units(image.module.key)
        for row in objects:
            if row.source in known or (is_described and row.source not in undescribed):
                rows.append((row, [image.module], set()))
            elif row.source not in named:
                _, modules, described = doubtful.setdefault((row.source, row.digest), (row, [], set()))
                modules.append(image.module)
                described |= {image.module.key} if image.commands.units else set()
    return [*rows, *doubtful.values()]


def _given(old: Path, new: Path, request: Request, process: LoadedProcess, store: Store) -> EditedUnits:
    content = _content(new)
    graph = with_local_branches(read_unit(content, str(new)))
    before, digest = store.put(_content(old)), store.put(content)
    # An object that runs already by an earlier patch is that patch's unit.
    known = [
        (name, module.image)
        for key, rows in request.record.images.items()
        for name, unit in rows.items()
        if unit.object == before and (module := process.module(key)) is not None
    ]
    if not known:
        old_graph = read_unit(store.get(before).read_bytes(), str(old))
        images = images_by_memory(old_graph, process, process.read, str(old))
        known = [(str(old.absolute()), image) for image in images]
    for _, image in known:
        _require_format_of(image, graph, str(new))
    units = tuple(Edited(name, graph, digest, store.get(before), {}, image) for name, image in known)
    return EditedUnits(units, (), ())


def _require_format_of(image: LoadedImage, graph: LinkGraph, name: str) -> None:
    if graph.format != image.format:
        raise Refused(
            [
                Refusal(
                    "object-wrong-architecture",
                    f"{name} is an object of another format ({graph.format}) than the program ({image.format})",
                    "Build it for the system that the program runs on.",
                    file=name,
                )
            ]
        )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IpbpError(
            "object-unreadable", f"{path}: cannot be read: {error.strerror}", "Name two existing object files."
        ) from error
