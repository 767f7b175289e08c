"""Why a crate may not be what runs, and what of that cannot be a patch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ipbp.build.cargo import build_folder
from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.crate_profile import refuse_lto
from ipbp.build.depfile import dependencies_of
from ipbp.build.dirty import PatchedUnit
from ipbp.build.snapshot import MISSING, Snapshot
from ipbp.build.workshop import Workshop
from ipbp.errors import Refusal

_ENVIRONMENT = re.compile(r"^# env-dep:([^=\n]+)(?:=(.*))?$", re.MULTILINE)
_WATCHED = re.compile(rb"^cargo::?rerun-if-changed=(.*)$", re.MULTILINE)


def edited_since(library: Path, image_mtime_ns: int) -> bool:
    """Whether what a dynamic library was made of may be newer than the library."""
    snapshot, files = Snapshot(), files_of_library(library)
    return not files or any(snapshot.modified_ns(path) >= image_mtime_ns for path in files)


def files_of_library(library: Path) -> list[str]:
    """What a dynamic library was made of, other crates included. cargo writes it down beside the library, so that it
    need not be asked for each one that is loaded. [] where it has not."""
    folder = build_folder(library)
    assert folder is not None
    place = library.parent if library.parent.name == "examples" else folder
    return made_from(place / library.with_suffix(".d").name, str(place), Snapshot())[0]


def refusals_of(commands: Sequence[CrateCommand], reasons: Mapping[str, str], snapshot: Snapshot) -> list[Refusal]:
    """Why what was edited cannot be a patch."""
    whole = commands[-1]
    edited = [row for row in commands if reasons[row.stem]]
    if whole.kind == "dylib" and edited:
        return [_in_dylib(whole, reasons[edited[0].stem])]
    refusals = [_not_ours(row, reasons[row.stem]) for row in edited if not is_crate(row)]
    refusals += [_script_outdated(row, cause) for row in commands if (cause := _newer_than_script(row, snapshot))]
    return [*refusals, *(refuse_lto(commands) if edited else ())]


def is_crate(row: CrateCommand) -> bool:
    """Whether its code is in the program, and the user's to edit."""
    return row.kind in ("bin", "cdylib", "lib", "rlib") and row.is_local and row.is_linked


def reason_of(
    row: CrateCommand, image_mtime_ns: int, unit: PatchedUnit | None, snapshot: Snapshot, workshop: Workshop
) -> str:
    """Why what was built of a crate may not be what its files say, or ""."""
    if not row.is_local:
        return ""
    if unit is not None:
        changed = (path for path, digest in unit.dependencies.items() if snapshot.digest(path) != digest)
        _, read = made_from(workshop.outputs(row) / row.depfile.name, row.directory, snapshot)
        return next((f"{path} changed" for path in changed), "") or other_variable(row, read)
    if row.kind == "build-script":
        return _script_reason(row, snapshot)
    built = snapshot.modified_ns(str(row.product))
    if built > image_mtime_ns:
        return "its library is newer than the running program"
    files, variables = made_from(row.depfile, row.directory, snapshot)
    for path in files:
        # The same tick counts as newer: the clock of a file system stands still for some milliseconds.
        if snapshot.modified_ns(path) >= built:
            return f"{path} is newer than what was built of it"
    return other_variable(row, variables)


def other_variable(row: CrateCommand, variables: Mapping[str, str | None]) -> str:
    for name, value in variables.items():
        if value_of(row, name) != value:
            return f"the environment variable {name}, which it reads, has changed"
    return ""


def value_of(row: CrateCommand, name: str) -> str | None:
    """Of a variable of the environment, for the crate's compiler."""
    return dict(row.environment).get(name, os.environ.get(name))


def _script_reason(row: CrateCommand, snapshot: Snapshot) -> str:
    built = snapshot.modified_ns(str(row.product))
    files, _ = made_from(row.depfile, row.directory, snapshot)
    newer = (path for path in files if snapshot.modified_ns(path) >= built > MISSING)
    return next((f"{path} is newer than the build script made of it" for path in newer), "")


def _newer_than_script(row: CrateCommand, snapshot: Snapshot) -> str:
    """For whose sake cargo would run the build script of this crate's package again: a file or variable with what is
    the matter, or "". What the script said in the user's build is beside its folder for files (Cargo book, "Build
    Scripts")."""
    folder = dict(row.environment).get("OUT_DIR", "")
    output = Path(folder).parent / "output"
    if not folder or not row.is_local:
        return ""
    try:
        said = output.read_bytes()
    except OSError:
        return ""
    ran = snapshot.modified_ns(str(output))
    for name in _WATCHED.findall(said):
        path = snapshot.locate(row.package, os.fsdecode(name).strip())
        if snapshot.modified_ns(path) > ran:
            return f"{path}, which is newer than what it made"
    return next((f"the environment variable {name}, which has changed" for name in _changed_for(row, folder)), "")


def _changed_for(row: CrateCommand, folder: str) -> Iterator[str]:
    """Variables that had another value when the build script ran, by cargo's mark (cargo, "core/compiler/fingerprint",
    `LocalFingerprint`). `folder`: the script's for files, `build/PACKAGE-HASH/out`."""
    unit = Path(folder).parent
    for mark in (unit.parent.parent / ".fingerprint" / unit.name).glob("run-build-script-*.json"):
        try:
            rows = [entry["RerunIfEnvChanged"] for entry in _said(mark) if "RerunIfEnvChanged" in entry]
            known = {entry["var"]: entry["val"] for entry in rows}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # written by another version of cargo
        yield from (name for name, value in known.items() if value_of(row, name) != value)


def _said(mark: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(mark.read_text())["local"]
    return found


def _script_outdated(row: CrateCommand, cause: str) -> Refusal:
    return Refusal(
        "cargo-build-needed",
        f"the build script of {row.name} depends on {cause}",
        "Run `cargo build` and start the program once more, and the debugger with the same environment.",
        row.name,
        row.source,
    )


def made_from(depfile: Path, directory: str, snapshot: Snapshot) -> tuple[list[str], dict[str, str | None]]:
    """Files and environment variables that rustc wrote down (rustc book, "dep-info")."""
    try:
        content = depfile.read_bytes()
    except OSError:
        return [], {}
    files = [snapshot.locate(directory, name) for name in dependencies_of(content)]
    text = content.decode("utf-8", "surrogateescape")
    variables = {match[1]: match[2] for match in _ENVIRONMENT.finditer(text)}
    return files, variables


def _not_ours(row: CrateCommand, reason: str) -> Refusal:
    if row.kind == "dylib":
        return _in_dylib(row, reason)
    what = {"build-script": "a build script", "proc-macro": "a procedural macro"}.get(row.kind, f"a {row.kind}")
    return Refusal(
        "cargo-build-needed",
        f"{what} changed, which decides what the code of other crates is: {reason}",
        "Run `cargo build` and start the program once more.",
        row.name,
        row.source,
    )


def _in_dylib(row: CrateCommand, reason: str) -> Refusal:
    return Refusal(
        "cargo-library",
        f"{row.product.name} is a `dylib`: rustc compiles the crates that use one against the linked file, and ipbp "
        f"links nothing; {reason}",
        "Make it an `rlib` (the default) or a `cdylib`, or leave what it is made from out of the edit.",
        row.product.name,
        row.source,
    )
