"""A compile command made up from what the compiler wrote about itself, for a program without a database.

gcc records the options that shape the code, but neither -D nor -I (GCC source, `gen_producer_string`): folders of
headers are guessed from the line table, and macros given on the command line cannot be known. clang records nothing
unless it was asked to (-grecord-command-line), and then everything. Only the very same version of the compiler makes
the same code, so any other is no answer.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ipbp.build.command import Command
from ipbp.build.options import arguments_of
from ipbp.build.producer import SourceUnit


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """`command`, or None; then `reason` says why there is none."""

    command: Command | None
    reason: str


def command_from_producer(unit: SourceUnit, folders: Sequence[Path] = ()) -> Reconstruction:
    """The command that the unit was most likely compiled with. `folders`: of the headers it used, see
    `producer.include_folders`. Runs a compiler found on PATH with -dumpfullversion, once for each."""
    if not unit.source.is_absolute() or not unit.source.is_file():
        return Reconstruction(None, f"{unit.source} is not there")
    if unit.producer.startswith("GNU "):
        return _gcc(unit, folders)
    if "clang version" in unit.producer:
        return _clang(unit)
    return Reconstruction(None, f"{unit.name} was compiled by '{unit.producer[:40]}', which records no options")


_GNU = re.compile(
    r"GNU (?P<language>C|C\+\+)[0-9a-z]* (?P<version>[0-9]+(?:\.[0-9]+)*)\S*(?: \([^)]*\))?(?P<options> .*)?"
)
# Written by the compiler proper when it is given preprocessed text (ccache, -save-temps); not for the driver.
_INTERNAL = frozenset({"-fpreprocessed", "-fdirectives-only"})
_LP64 = "-mabi=lp64"  # what gcc for AArch64 always writes, and no other
MACROS_UNKNOWN = "compiled without the -D options of the build: gcc does not record them"


def _gcc(unit: SourceUnit, folders: Sequence[Path]) -> Reconstruction:
    found = _GNU.fullmatch(unit.producer)
    if found is None:
        return Reconstruction(None, f"{unit.name} is no C or C++ of gcc: '{unit.producer[:40]}'")
    version = found["version"]
    target = "aarch64" if _LP64 in (found["options"] or "").split() else "x86_64"
    compiler = _gcc_of_version("g++" if found["language"] == "C++" else "gcc", version, target)
    if compiler is None:
        return Reconstruction(None, f"{unit.name} was compiled by gcc {version}, which is not on PATH")
    options = [word for word in (found["options"] or "").split() if word not in _INTERNAL]
    words = [compiler, *options]
    for folder in _search_folders(unit, folders):
        words += ["-I", str(folder)]
    words += ["-c", unit.name]
    return Reconstruction(Command(unit.directory, unit.source, None, tuple(words), notes=(MACROS_UNKNOWN,)), "")


def _search_folders(unit: SourceUnit, used: Sequence[Path]) -> list[Path]:
    """The folders that headers came from; behind them, for `#include "part/name.h"`, their parents as far as they
    are below the compiler's working directory or the source's folder."""
    roots = [unit.directory, unit.source.parent]
    parents = [p for folder in used for p in folder.parents if any(p.is_relative_to(root) for root in roots)]
    return [folder for folder in dict.fromkeys([*used, *parents]) if folder.is_dir()]


@functools.lru_cache(maxsize=16)
def _gcc_of_version(driver: str, version: str, target: str) -> str | None:
    """The name of a gcc of exactly this version for this machine on PATH."""
    names = (driver, f"{driver}-{version.split('.')[0]}")
    cross = tuple(f"{target}-linux-gnu-{name}" for name in reversed(names))
    for name in (*names, *cross) if platform.machine() == target else cross:
        if shutil.which(name) is None:
            continue
        done = subprocess.run(
            [name, "-dumpfullversion", "-dumpversion"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.stdout.decode("ascii", "replace").strip() == version:
            return name
    return None


def _clang(unit: SourceUnit) -> Reconstruction:
    # With -grecord-command-line the command stands behind the version, blanks and backslashes quoted by a backslash.
    recorded = re.search(r"(?<= )/(?:[^\s\\]|\\.)*(?: .*)?$", unit.producer, re.DOTALL)
    if recorded is None:
        return Reconstruction(
            None, f"{unit.name} was compiled by clang, which records its options only with -grecord-command-line"
        )
    words = [re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL) for word in re.findall(r"(?:[^ \\]|\\.)+", recorded[0])]
    if not os.access(words[0], os.X_OK):
        return Reconstruction(None, f"{unit.name} was compiled by {words[0]}, which is not there")
    output = next((row.value for row in arguments_of(words[1:]) if row.name == "-o" and "-c" in words), None)
    path = Path(os.path.normpath(unit.directory / output)) if output else None
    return Reconstruction(Command(unit.directory, unit.source, path, tuple(words)), "")
