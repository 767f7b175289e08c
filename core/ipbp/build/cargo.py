"""The cargo project that a program or dynamic library was built in, found from where that lies.

cargo puts programs into `target/[triple/]profile/`, with marks of its own beside them (Cargo book, "Build cache").
The workspace is upwards of there, or, when one target directory serves many projects, where the debug information
says that rustc ran.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipbp.errors import IpbpError

_MARKS = (".cargo-lock", ".cargo-build-lock", ".fingerprint")
_INNER = ("deps", "examples")
_HASHED = re.compile(r"(.+)-([0-9a-f]{16})\Z")
_TARGET = re.compile(r"(test-)?(lib|bin|example|integration-test|bench)-(.+)\Z")
"""Names of cargo's marks (cargo, "core/compiler/fingerprint")."""


@dataclass(frozen=True, slots=True)
class CargoProgram:
    """`root`: the workspace's folder. `target`: what cargo builds into; `triple` and `profile` name the folder in it
    ("" for the host; "dev" for `debug`). `package` with the `selection` that names the program to cargo (`--bin
    NAME`; `--lib` for a library). `manifests`: Cargo.toml of all members. `is_test`: it is a test's or benchmark's.
    `features`: that some member was built with last, as `package/feature`. `rustflags`: that the program was built
    with, None when that is not known; `mark`: the file that says so."""

    executable: Path
    root: Path
    target: Path
    triple: str
    profile: str
    package: str
    selection: tuple[str, ...]
    manifests: tuple[Path, ...]
    is_test: bool = False
    features: tuple[str, ...] = ()
    rustflags: tuple[str, ...] | None = None
    mark: Path | None = None


@dataclass(frozen=True, slots=True)
class _Mark:
    """What cargo wrote down of one thing that it built: `kind` and `name` of the target."""

    file: Path
    package: str
    kind: str
    name: str
    is_test: bool

    @property
    def rustflags(self) -> tuple[str, ...] | None:
        try:
            return tuple(json.loads(self.file.read_text())["rustflags"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # written by another version of cargo

    @property
    def selection(self) -> tuple[str, ...]:
        option = {"integration-test": "--test"}.get(self.kind, f"--{self.kind}")
        return (option,) if self.kind == "lib" else (option, self.name)


def is_library(program: Path) -> bool:
    return program.suffix == ".so"


def build_folder(executable: Path) -> Path | None:
    """The folder of cargo's that a program or dynamic library lies in (`target/debug`), or None for those of another
    build."""
    if ".so" in executable.name and not is_library(executable):
        return None
    folder = executable.parent.parent if executable.parent.name in _INNER else executable.parent
    return folder if any((folder / mark).exists() for mark in _MARKS) else None


def cargo_program(executable: Path, roots: Iterable[Path]) -> CargoProgram:
    """How cargo knows a program that lies in one of its folders. `roots`: those of `project_roots`.
    `no-cargo-project` when none of them has such a program.

    Runs `cargo metadata`, which reads the project's settings: ask `trust` before.
    """
    folder = build_folder(executable)
    assert folder is not None
    target, triple = _target_and_triple(folder)
    profile = "dev" if folder.name == "debug" else folder.name
    mark = _mark(executable, folder)
    for root in roots:
        described = metadata(root)
        for package in described["packages"]:
            if mark is not None:
                selection = mark.selection if package["name"] == mark.package else ()
            else:
                selection = _selection(package, executable)
            if selection:
                return CargoProgram(
                    executable,
                    Path(described["workspace_root"]),
                    target,
                    triple,
                    profile,
                    package["name"],
                    selection,
                    tuple(Path(row["manifest_path"]) for row in described["packages"]),
                    mark is not None and mark.is_test,
                    tuple(_features(folder, [row["name"] for row in described["packages"]])),
                    mark.rustflags if mark is not None else None,
                    mark.file if mark is not None else None,
                )
    raise IpbpError(
        "no-cargo-project",
        f"{executable} lies in a folder of cargo's, but no cargo project with a program of that name was found "
        f"upwards of {target}",
        "Start the program from the target directory of its own project.",
    )


def project_roots(executable: Path, folders: Callable[[], Iterable[Path]]) -> Iterator[Path]:
    """Folders with a Cargo.toml that may be the project of a program in cargo's folders: upwards of there, then,
    for a target directory that several projects share, among `folders`, where its compilers ran."""
    folder = build_folder(executable)
    if folder is None:
        return
    above = _target_and_triple(folder)[0].parent
    nearest = next((place for place in (above, *above.parents) if (place / "Cargo.toml").is_file()), None)
    if nearest is not None:
        yield nearest
    yield from (place for place in folders() if place != nearest and (place / "Cargo.toml").is_file())


def cargo() -> str:
    """The cargo to run: of PATH, else rustup's. `cargo-missing`."""
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    found = shutil.which("cargo") or shutil.which("cargo", path=os.path.join(home, "bin"))
    if found is None:
        raise IpbpError(
            "cargo-missing",
            "the program was built by cargo, and there is no cargo on PATH",
            "Start the debugger where `cargo build` works.",
        )
    return found


def metadata(folder: Path) -> dict[str, Any]:
    """What `cargo metadata --no-deps` says; it writes nothing. `cargo-failed` with cargo's own text."""
    done = run_cargo(["metadata", "--no-deps", "--offline", "--format-version", "1"], folder, {})
    found: dict[str, Any] = json.loads(done)
    return found


def run_cargo(words: list[str], folder: Path, environment: dict[str, str]) -> bytes:
    """Standard output of one cargo command. `cargo-failed`."""
    done = subprocess.run(
        [cargo(), *words],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise IpbpError(
            "cargo-failed",
            f"`cargo {words[0]}` in {folder} ended with status {done.returncode}",
            "Run `cargo build` there once; what it says is what ipbp needs to be right.",
            done.stderr.decode("utf-8", "replace"),
        )
    return done.stdout


def _target_and_triple(folder: Path) -> tuple[Path, str]:
    # The mark of a cache directory (bford.info/cachedir) is in the target directory, and by newer versions of cargo in
    # the folders of triples as well; what cargo knows of rustc is in the first only.
    outer = folder.parent
    if not (outer / ".rustc_info.json").exists() and (outer.parent / "CACHEDIR.TAG").exists():
        return outer.parent, outer.name
    return outer, ""


def _mark(executable: Path, folder: Path) -> _Mark | None:
    """What cargo's own marks say of the program. Their folders have the hash that is in the names of files in `deps`,
    of which the program, where it has none, is a hard link."""
    if is_library(executable):
        return _mark_of_library(executable, folder)
    names = [executable.name]
    if executable.parent.name not in _INNER or not _HASHED.match(executable.name):
        near = [folder / "deps", executable.parent]
        files = [path for place in near for path in place.glob(f"{executable.name.replace('-', '_')}-*")]
        names = [path.name for path in files if path.suffix == "" and path.samefile(executable)]
    for name in names:
        found = _HASHED.match(name)
        for path in (folder / ".fingerprint").glob(f"*-{found[2]}/*.json") if found else ():
            target = _TARGET.match(path.stem)
            if target is not None:
                return _Mark(path, path.parent.name.rpartition("-")[0], target[2], target[3], bool(target[1]))
    return None


def _mark_of_library(library: Path, folder: Path) -> _Mark | None:
    """Of a dynamic library, whose name has no hash: cargo keeps one build of it in a folder, and that was made last."""
    kinds = ("example",) if library.parent.name == "examples" else ("lib",)
    found = [
        _Mark(path, path.parent.name.rpartition("-")[0], target[2], target[3], False)
        for path in (folder / ".fingerprint").glob("*/*.json")
        if (target := _TARGET.match(path.stem)) is not None
        and not target[1]
        and target[2] in kinds
        and library_name(target[3]) == library.name
    ]
    return max(found, key=lambda mark: mark.file.stat().st_mtime_ns, default=None)


def library_name(target: str) -> str:
    """The file that cargo makes of a `cdylib` or `dylib`."""
    return f"lib{target.replace('-', '_')}.so"


def _features(folder: Path, packages: Iterable[str]) -> Iterator[str]:
    """Features other than the default that these packages were built with last."""
    for package in packages:
        marks = [path for path in (folder / ".fingerprint").glob(f"{package}-*/*.json") if _TARGET.match(path.stem)]
        marks = [path for path in marks if path.parent.name.rpartition("-")[0] == package]
        for path in sorted(marks, key=lambda path: path.stat().st_mtime_ns)[-1:]:
            yield from (f"{package}/{feature}" for feature in marked_features(path) or () if feature != "default")


def marked_features(mark: Path) -> tuple[str, ...] | None:
    """What one of cargo's marks says of features; None when it was written by another version of cargo."""
    try:
        return tuple(json.loads(json.loads(mark.read_text())["features"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _selection(package: dict[str, Any], executable: Path) -> tuple[str, ...]:
    """The options that make cargo build this program, or nothing when this package has none of its name."""
    folder, name = executable.parent.name, executable.name
    if is_library(executable):
        return _library_selection(package, executable)
    kinds = {"example": "--example"} if folder == "examples" else {"bin": "--bin"}
    hashed, _, digest = name.rpartition("-")
    for target in package["targets"]:
        for kind, option in kinds.items():
            if kind not in target["kind"]:
                continue
            crate = target["name"].replace("-", "_")
            if target["name"] == name or (folder in _INNER and len(digest) == 16 and crate == hashed):
                return (option, target["name"])
    return ()


def _library_selection(package: dict[str, Any], library: Path) -> tuple[str, ...]:
    for target in package["targets"]:
        if library_name(target["name"]) == library.name and {"cdylib", "dylib"} & set(target["crate_types"]):
            return ("--example", target["name"]) if "example" in target["kind"] else ("--lib",)
    return ()
