"""The cargo project that a program was built in, found from where the program lies.

cargo puts programs into `target/[triple/]profile/`, with marks of its own beside them (Cargo book, "Build cache").
The workspace is upwards of there, or, when one target directory serves many projects, where the debug information
says that rustc ran.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipbp.errors import IpbpError

_MARKS = (".cargo-lock", ".cargo-build-lock", ".fingerprint")
_INNER = ("deps", "examples")


@dataclass(frozen=True, slots=True)
class CargoProgram:
    """`root`: the workspace's folder. `target`: what cargo builds into; `triple` and `profile` name the folder in it
    ("" for the host; "dev" for `debug`). `package` with the `selection` that names the program to cargo (`--bin
    NAME`). `manifests`: Cargo.toml of all members."""

    executable: Path
    root: Path
    target: Path
    triple: str
    profile: str
    package: str
    selection: tuple[str, ...]
    manifests: tuple[Path, ...]


def build_folder(executable: Path) -> Path | None:
    """The folder of cargo's that a program lies in (`target/debug`), or None for a program of another build."""
    if ".so" in executable.name:
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
    for root in roots:
        described = metadata(root)
        for package in described["packages"]:
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
    # The mark of a cache directory (bford.info/cachedir) is in the target directory itself.
    outer = folder.parent
    if not (outer / "CACHEDIR.TAG").exists() and (outer.parent / "CACHEDIR.TAG").exists():
        return outer.parent, outer.name
    return outer, ""


def _selection(package: dict[str, Any], executable: Path) -> tuple[str, ...]:
    """The options that make cargo build this program, or nothing when this package has none of its name."""
    folder, name = executable.parent.name, executable.name
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
