"""Two build trees, before an edit and after it, as a patch file: no process is needed for it, nor a debugger.

Objects are paired by their paths in the trees, members of static libraries by their names in them, too. What an object
is a part of is not guessed from paths: its code is looked for in the programs and libraries of its tree, as it is in
the memory of a process. An object that differs and is in none of them would be an edit that is silently left out, and
so would a unit of a program whose object is nowhere in the tree; both are refused.
Crates of Rust are compared as a whole, which `crates_of_trees` is about.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ipbp.build.compile import Tell
from ipbp.build.debug_sections import sections_from
from ipbp.build.producer import source_units, units_of
from ipbp.build.store import Store
from ipbp.build.tree_crates import CratesFound, TreeCrate, mapped
from ipbp.errors import IpbpError, Refusal, Refused, raise_all
from ipbp.formats.elf_archive import objects_of
from ipbp.formats.elf_image import read_image
from ipbp.formats.elf_linked import ET_DYN, ET_EXEC
from ipbp.formats.elf_object import read_object
from ipbp.graph.image import LoadedImage
from ipbp.graph.model import LinkGraph
from ipbp.patch_file import PatchFile, UnitChange
from ipbp.pipeline.crates_of_trees import (
    KEEP_OBJECTS,
    crates_that_differ,
    crates_undescribed,
    in_dylib,
    is_dylib,
    is_of_crate,
    is_undescribed,
    only_in_one_tree,
    runs_at_build,
    source_of_crate,
    sources_without_objects,
    stored_crate,
)
from ipbp.pipeline.homes import common_functions
from ipbp.pipeline.layouts import sections_of_object
from ipbp.pipeline.patch_making import BuiltImage, make_patch, memory_of
from ipbp.pipeline.stored import read_stored
from ipbp.stages.attest import attest

_ET_REL = 1
_ELF, _ARCHIVE = b"\x7fELF\2\1", b"!<arch>\n"
_MANY = 5


@dataclass(frozen=True, slots=True)
class _Object:
    """`member`: of the archive at `path`, "" for an object that is a file."""

    path: Path
    member: str = ""

    def content(self) -> bytes:
        content = self.path.read_bytes()
        return bytes(objects_of(content, str(self.path))[self.member]) if self.member else content

    @property
    def name(self) -> str:
        return f"{self.path}({self.member})" if self.member else str(self.path)


@dataclass(frozen=True, slots=True)
class _Tree:
    """By paths in the tree: its programs and libraries, `others` that are not to be patched, its objects. Its crates
    by their names with rustc's hashes."""

    images: Mapping[str, Path]
    others: Mapping[str, Path]
    objects: Mapping[str, _Object]
    crates: Mapping[str, TreeCrate]


def patch_of_trees(
    old: Path, new: Path, allow_layout: Collection[str], allow_missing: bool, store: Store, tell: Tell
) -> PatchFile | None:
    """What differs between the trees; None when nothing does. One of the paths may be a program: then its folder is the
    tree, and nothing but that program is patched. `allow_missing`: units without an object count as not edited.

    Errors: `build-tree-unreadable`, `build-tree-empty`; `Refused`, with `object-not-linked`, `object-gone`,
    `objects-missing`, `crate-in-tree` and those of `make_patch`.
    """
    before, after = _tree(old), _tree(new)
    if not before.images:
        raise IpbpError(
            "build-tree-empty",
            f"{old} has no linked program or library of ELF in it",
            "Give the folder that the build left, with the program and the objects that it was linked from.",
        )
    images = _one_of_each(before.images)
    linked = {name: read_image(str(path)) for name, path in after.images.items() if name in images}
    tell("comparing the trees")
    parts = _Parts(images, linked, before.others, store, {name: [] for name in images}, [])
    differing, fresh, gone = _differing(before, after)
    for name in differing:
        parts.pair(name, before.objects[name], after.objects[name])
    for name in gone:
        parts.lost(before.objects[name])
    for name in fresh:
        parts.came(after.objects[name])
    differing, fresh, gone = crates_that_differ(before.crates, after.crates)
    for name in differing:
        parts.pair_crates(name, before.crates[name], after.crates[name])
    for name in gone:
        parts.stray(before.crates[name], images)
    for name in fresh:
        parts.stray(after.crates[name], linked)
    raise_all([*parts.refusals, *([] if allow_missing else _missing(before, after, images))])
    built = [BuiltImage(images[name], rows) for name, rows in parts.units.items() if rows]
    return make_patch(built, allow_layout, store, tell, keep_all=False)


def _one_of_each(paths: Mapping[str, Path]) -> dict[str, LoadedImage]:
    """The images without copies of others: cargo has each program twice. The shortest path is the one to keep."""
    found: dict[str, LoadedImage] = {}
    known: set[str] = set()
    for name in sorted(paths, key=lambda name: (name.count(os.sep), len(name), name)):
        image = read_image(str(paths[name]))
        if image.build_id not in known:
            found[name] = image
        known |= {image.build_id} if image.build_id else set()
    return dict(sorted(found.items()))


def _tree(root: Path) -> _Tree:
    images: dict[str, Path] = {}
    others: dict[str, Path] = {}
    objects: dict[str, _Object] = {}
    crates = CratesFound()
    folder = root if root.is_dir() else root.parent
    try:
        root.stat()
        for path in _files(folder):
            name = str(path.relative_to(folder))
            kind = _kind(path)
            if kind in (ET_EXEC, ET_DYN):
                is_meant = path == root or (root.is_dir() and not runs_at_build(path))
                (images if is_meant else others)[name] = path
            elif kind == _ET_REL and not crates.take(path, name):
                objects[name] = _Object(path)
            elif kind is None:
                members = crates.take_members(objects_of(mapped(path), str(path)))
                objects.update({f"{name}({member})": _Object(path, member) for member in members})
    except OSError as error:
        raise IpbpError(
            "build-tree-unreadable", f"{error.filename or root}: cannot be read: {error.strerror}", "Check the path."
        ) from error
    return _Tree(images, others, objects, crates.crates())


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _kind(path: Path) -> int | None:
    """e_type of an ELF file of 64 bits (gABI, "ELF Header"); None for an archive, 0 for anything else."""
    with path.open("rb") as file:
        head = file.read(18)
    if head[: len(_ARCHIVE)] == _ARCHIVE:
        return None
    return int.from_bytes(head[16:18], "little") if head[: len(_ELF)] == _ELF else 0


def _differing(before: _Tree, after: _Tree) -> tuple[list[str], list[str], list[str]]:
    """Names of objects with another content, of new ones and of those that are gone. What is a copy of another object
    that both trees have is left out, and what an archive has of an object that is a file as well."""
    old, new = (
        {name: hashlib.sha256(row.content()).hexdigest() for name, row in tree.objects.items()}
        for tree in (before, after)
    )
    both = old.keys() & new.keys()
    plain = {(old[name], new[name]) for name in both if not before.objects[name].member}
    differing = [
        name
        for name in sorted(both)
        if old[name] != new[name] and not (before.objects[name].member and (old[name], new[name]) in plain)
    ]
    known = {digest for name in both for digest in (old[name], new[name])}
    fresh = [name for name in sorted(new.keys() - both) if new[name] not in known]
    return differing, fresh, [name for name in sorted(old.keys() - both) if old[name] not in known]


@dataclass(slots=True)
class _Parts:
    """The units found so far, by the image that they are a part of, and what is refused. `linked`: the images after the
    edit, by the same names. `others`: those that are not patched, so that what they alone are made of is left out."""

    images: Mapping[str, LoadedImage]
    linked: Mapping[str, LoadedImage]
    others: Mapping[str, Path]
    store: Store
    units: dict[str, list[UnitChange]]
    refusals: list[Refusal]

    def pair(self, name: str, old: _Object, new: _Object) -> None:
        """An object that differs."""
        before, after = self._graph(old), self._graph(new)
        if before is None or after is None:
            return
        unit = UnitChange(0, _source(before) or name, self.store.put(new.content()), self.store.put(old.content()))
        self._pair(unit, name, (before, old.name), (after, new.name))

    def pair_crates(self, name: str, old: TreeCrate, new: TreeCrate) -> None:
        """A crate that differs."""
        digests = stored_crate(old, self.store), stored_crate(new, self.store)
        try:
            before, after = (read_stored(digest, self.store, name) for digest in digests)
        except Refused as refused:
            self.refusals += refused.refusals
            return
        # How it was optimised is not known: all of its objects are read.
        unit = UnitChange(0, _source_of_crate(old) or name, digests[1], digests[0], is_crate=True, is_optimised=True)
        self._pair(unit, name, (before, f"the crate {name}"), (after, f"the crate {name}"))

    def _pair(self, unit: UnitChange, name: str, old: tuple[LinkGraph, str], new: tuple[LinkGraph, str]) -> None:
        """`name`: in the trees; beside each graph, for messages."""
        (before, old_name), (after, new_name) = old, new
        homes = _homes(before, self.images)
        if not homes and not self._is_anothers(before):
            self.refusals.append(_not_linked(old_name, self.images.values()))
        for home in homes:
            if unit.is_crate and is_dylib(Path(self.images[home].path)):
                self.refusals.append(in_dylib(old_name, self.images[home].path))
            if home in self.linked and not _homes(after, {home: self.linked[home]}):
                self.refusals.append(_not_linked(new_name, [self.linked[home]]))
            self._add(home, unit, name)

    def _is_anothers(self, graph: LinkGraph) -> bool:
        return any(_homes(graph, {name: read_image(str(path))}) for name, path in self.others.items())

    def stray(self, crate: TreeCrate, images: Mapping[str, LoadedImage]) -> None:
        """A crate that one tree has, `images` its images."""
        graph = read_stored(stored_crate(crate, self.store), self.store, crate.name)
        self.refusals += [only_in_one_tree(crate, images[home].path) for home in _homes(graph, images)]

    def lost(self, old: _Object) -> None:
        """An object that the tree after the edit has not."""
        graph = self._graph(old)
        for home in _homes(graph, self.images) if graph is not None else ():
            self.refusals.append(
                Refusal(
                    "object-gone",
                    f"{self.images[home].path} was linked from {old.name}, which the new tree does not have",
                    "Keep the file, if only with less in it; or restart the program.",
                    file=old.name,
                )
            )

    def came(self, new: _Object) -> None:
        """An object that the tree before the edit has not. It counts where the new image has it."""
        graph = self._graph(new)
        for home in _homes(graph, self.linked) if graph is not None else ():
            name = (_source(graph) if graph is not None else "") or new.name
            self._add(home, UnitChange(0, name, self.store.put(new.content()), "", is_newcomer=True), new.name)

    def _add(self, home: str, unit: UnitChange, name: str) -> None:
        rows = self.units[home]
        is_taken = any(row.name == unit.name for row in rows)  # one source, compiled in two ways
        rows.append(replace(unit, name=name) if is_taken else unit)

    def _graph(self, row: _Object) -> LinkGraph | None:
        try:
            return read_object(row.content(), row.name)
        except Refused as refused:
            self.refusals += refused.refusals
            return None


def _homes(graph: LinkGraph, images: Mapping[str, LoadedImage]) -> list[str]:
    """Names of the images that were linked from this object, as their bytes prove."""
    found = []
    for name, image in images.items():
        if common_functions(graph, image):
            proof = attest(graph, image, memory_of(image))
            if proof.proved.any() and not proof.mismatched:
                found.append(name)
    return found


def _sources(graph: LinkGraph) -> list[str]:
    sections = {name[1:]: content for name, content in sections_of_object(graph).items()}
    if "debug_info" not in sections:
        return []
    return [str(unit.source) for unit in units_of(sections_from(sections), graph.path)]


def _source(graph: LinkGraph) -> str:
    """The source of an object, as its debug information says; "" where that names none or several."""
    found = _sources(graph)
    return found[0] if len(found) == 1 else ""


def _source_of_crate(crate: TreeCrate) -> str:
    """Its first source, as the debug information of one of its objects says; "" where none has any."""
    for name, content in crate.contents():
        row = content.read_bytes() if isinstance(content, Path) else bytes(content)
        found = source_of_crate(_sources_of(row, name))
        if found:
            return found
    return ""


def _missing(before: _Tree, after: _Tree, images: Mapping[str, LoadedImage]) -> list[Refusal]:
    """Of images that differ: their units whose object is not in the tree."""
    differing = [
        name
        for name, path in before.images.items()
        if name in images and (name not in after.images or path.read_bytes() != after.images[name].read_bytes())
    ]
    units = {name: source_units(Path(images[name].debug_file)) for name in differing}
    of_c = any(not is_of_crate(unit) for found in units.values() for unit in found)
    rows = before.objects.values() if of_c else ()
    there = {source for row in rows for source in _sources_of(row.content(), row.name)}
    refusals = []
    for name, found in units.items():
        gone = {str(unit.source) for unit in found if not is_of_crate(unit)} - there
        if gone:
            refusals.append(_without_objects(images[name], gone, "Give the folder with all objects"))
        gone = sources_without_objects(found, before.crates.values())
        if gone:
            refusals.append(_without_objects(images[name], gone, KEEP_OBJECTS))
        if is_undescribed(found, images[name]):
            refusals.append(crates_undescribed(images[name].path))
    return refusals


def _sources_of(content: bytes, name: str) -> list[str]:
    try:
        return _sources(read_object(content, name))
    except (IpbpError, Refused):  # it does not differ; whatever it is, it is no proof of a unit
        return []


def _without_objects(image: LoadedImage, sources: Collection[str], advice: str) -> Refusal:
    shown = sorted(sources)[:_MANY]
    more = f" and {len(sources) - len(shown)} more" if len(sources) > len(shown) else ""
    return Refusal(
        "objects-missing",
        f"{image.path} was built from {', '.join(shown)}{more}, of which the tree has no object, so that an edit there "
        "would be left out",
        f"{advice}; or use `--allow-missing` when these were not edited.",
        file=Path(image.path).name,
    )


def _not_linked(name: str, images: Iterable[LoadedImage]) -> Refusal:
    paths: Sequence[str] = [image.path for image in images][:_MANY]
    return Refusal(
        "object-not-linked",
        f"{', '.join(paths)} {'was' if len(paths) == 1 else 'were'} not linked from {name}",
        "Give the build tree as it was when the program was linked.",
        file=name,
    )
