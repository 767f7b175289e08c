"""The crates of two build trees of cargo: which of them differ, and what of that can be a patch.

What runs at the build only, build scripts and procedural macros, is no part of one: what they made of the crates is in
the objects of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ipbp.build.producer import SourceUnit
from ipbp.build.store import Store
from ipbp.build.tree_crates import TreeCrate, mapped
from ipbp.errors import Refusal
from ipbp.graph.image import LoadedImage
from ipbp.members import packed_list

_MARK = "/@/"
"""What rustc writes between a crate's first source and the name of a codegen unit, in debug information."""
_OF_STD = ("/rustc/", "/rust/deps/")
"""Where the sources of std and of its crates are said to be: nobody edits them, and a tree has no objects of them."""
_RUNTIME = "rust_eh_personality"
_BUILD_SCRIPTS = ("build-script-", "build_script_")
_METADATA = b"rust_metadata_"
"""What a symbol of a dynamic library begins with that rustc compiles other crates against (`dylib`)."""
_MACROS = b"__rustc_proc_macro_decls_"
"""What the symbol of a procedural macro begins with (rustc, "rustc_session/src/config.rs")."""

KEEP_OBJECTS = (
    "rustc removes a program's objects after the link: build both trees with `incremental = true` in the profile, or "
    "with RUSTFLAGS=`-C save-temps`"
)


def runs_at_build(path: Path) -> bool:
    """Whether a program or library in cargo's target folder is none that a user runs."""
    if path.parent.parent.name == "build" and path.name.startswith(_BUILD_SCRIPTS):
        return True
    return path.suffix == ".so" and _MACROS in bytes(mapped(path))


def is_dylib(path: Path) -> bool:
    """Whether rustc compiles other crates against this library."""
    return path.suffix == ".so" and _METADATA in bytes(mapped(path))


def crates_that_differ(
    before: Mapping[str, TreeCrate], after: Mapping[str, TreeCrate]
) -> tuple[list[str], list[str], list[str]]:
    """Their names in the trees: with another content, new, gone."""
    both = sorted(before.keys() & after.keys())
    differing = [name for name in both if _digests(before[name]) != _digests(after[name])]
    return differing, sorted(after.keys() - both), sorted(before.keys() - both)


def _digests(crate: TreeCrate) -> dict[str, str]:
    return {name: hashlib.sha256(_content(content)).hexdigest() for name, content in crate.units.items()}


def _content(content: Path | memoryview) -> bytes | memoryview:
    return content.read_bytes() if isinstance(content, Path) else content


def stored_crate(crate: TreeCrate, store: Store) -> str:
    """The digest of the list of its objects, all of which are in the store then."""
    rows = [(name, store.put(bytes(_content(content)))) for name, content in crate.units.items()]
    return store.put(packed_list(rows))


def source_of_crate(sources: Collection[str]) -> str:
    """The crate's first source, of what debug information says of one of its objects; "" where that says nothing."""
    found = {source.partition(_MARK)[0] for source in sources if _MARK in source}
    return found.pop() if len(found) == 1 else ""


def is_of_crate(unit: SourceUnit) -> bool:
    """Whether it was compiled by rustc."""
    return _MARK in unit.name


def sources_without_objects(units: Iterable[SourceUnit], crates: Iterable[TreeCrate]) -> set[str]:
    """First sources of the crates that an image was built from and that the tree lacks an object of."""
    known = {name.removesuffix(".o") for crate in crates for name in crate.units}
    rows = [str(unit.source).partition(_MARK) for unit in units if is_of_crate(unit)]
    return {source for source, _, unit in rows if unit not in known and not source.startswith(_OF_STD)}


def is_undescribed(units: Collection[SourceUnit], image: LoadedImage) -> bool:
    """Whether an image has code of rustc's, and debug information of std at most."""
    found = [str(unit.source) for unit in units if is_of_crate(unit)]
    return (bool(found) or _RUNTIME in image.symbols.by_name) and all(source.startswith(_OF_STD) for source in found)


def only_in_one_tree(crate: TreeCrate, image: str) -> Refusal:
    """Of a crate in an image, which the other tree does not have."""
    return Refusal(
        "crate-in-tree",
        f"{image} was linked from the crate {crate.name}, which the other tree does not have: it is a new one, or was "
        "built with other settings (its version, its features, the profile, the compiler)",
        "Build both trees with the same settings, and keep to edits of sources; or restart the program.",
        file=crate.name,
    )


def in_dylib(crate: str, image: str) -> Refusal:
    """Of a crate that differs in such a library."""
    return Refusal(
        "cargo-library",
        f"{crate} differs, a part of {Path(image).name}, which is a `dylib`: rustc compiles the crates that use one "
        "against the linked file",
        "Make it an `rlib` (the default) or a `cdylib`, or leave it out of the edit.",
        file=Path(image).name,
    )


def crates_undescribed(image: str) -> Refusal:
    """Of an image of which nothing tells whether the tree has all of its crates."""
    return Refusal(
        "objects-missing",
        f"{image} has no debug information of its crates, which would tell whether the tree has the objects of all",
        'Build with `debug = "line-tables-only"` or more; or use `--allow-missing` when the tree has all that was '
        "edited.",
        file=Path(image).name,
    )
