"""Which files a translation unit was made from, so that an edited header finds its units.

Every build system leaves this somewhere: make's depfile beside the object or where -MF said, automake's `.deps`,
ninja's log. Where nothing is left the compiler itself is asked (-MM), and its answer is kept until one of the
files that it names has another content.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from ipbp.build.command import Command, for_listing, has_precompiled, split_compiler
from ipbp.build.depfile import dependencies_of
from ipbp.build.environment import environment_of
from ipbp.build.ninja_deps import ninja_dependencies
from ipbp.build.notes import write_whole
from ipbp.build.options import Argument, arguments_of
from ipbp.build.places import cache_folder
from ipbp.build.snapshot import Snapshot
from ipbp.kept import Kept


def recorded_dependencies(command: Command, snapshot: Snapshot) -> tuple[str, ...] | None:
    """What the last build wrote down, absolute, the source included; None when it left nothing.

    Of what may be a depfile only one that names the source counts, and none where headers may be precompiled: they are
    not in it.
    """
    if has_precompiled(command, snapshot):
        return None
    directory, source = str(command.directory), str(command.source)
    for path in _depfiles(command):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        found = _located(content, directory)
        if source in found or os.path.realpath(source) in map(os.path.realpath, found[:3]):
            return found if source in found else (source, *found)
    return ninja_dependencies(command.directory, command.output) if command.output else None


def listed_dependencies(command: Command, snapshot: Snapshot) -> tuple[str, ...] | None:
    """What the compiler says (-MM: without system headers), absolute, the source included; None when it fails,
    which it does on a source that does not compile. Runs the command's compiler: ask `trust` before."""
    note = _note(command)
    remembered = _remembered(note, snapshot)
    if remembered is not None:
        return remembered
    try:
        done = subprocess.run(
            for_listing(command),
            cwd=command.directory,
            env=environment_of(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return None  # the compile of this unit will say what is wrong
    if done.returncode != 0:
        return None
    names = dependencies_of(done.stdout)
    found = dict.fromkeys([str(command.source), *(snapshot.locate(str(command.directory), name) for name in names)])
    write_whole(note, json.dumps({path: snapshot.digest(path) for path in found}))
    return tuple(found)


_named: Kept[tuple[bytes, str], tuple[str, ...]] = Kept(1 << 20)  # paths
"""By the digest of a depfile and the folder that its paths start from: each patch reads the depfiles of all units, few
of which are new."""


def _located(content: bytes, directory: str) -> tuple[str, ...]:
    """The files that a depfile names, absolute and normalised."""
    key = hashlib.sha256(content).digest(), directory
    found = _named.get(key)
    if found is None:
        names = dependencies_of(content)
        # Many units name the same headers.
        found = tuple(sys.intern(os.path.normpath(os.path.join(directory, name))) for name in names)
        _named.put(key, found, len(found))
    return found


def _depfiles(command: Command) -> Iterator[Path]:
    named = _named_depfile(arguments_of(split_compiler(command)[1]))
    if named:
        path = command.directory / named
        yield path
        yield path.with_suffix(".Po")  # automake compiles to .Tpo and renames it
        yield path.with_suffix(".Plo")
    output = command.output
    if output is not None:
        yield output.with_name(f"{output.name}.d")  # CMake
        yield output.with_suffix(".d")  # gcc's -MD
        yield output.with_name(f".{output.name}.d")
        yield output.parent / ".deps" / f"{output.stem}.Po"
        yield output.parent.parent / ".deps" / f"{output.stem}.Plo"  # the object is in .libs


def _named_depfile(rows: list[Argument]) -> str | None:
    for row in rows:
        if row.name == "-MF" and row.value:
            return row.value
        if row.words[0].startswith("-Wp,"):
            for option, value in pairwise(row.words[0].split(",")):
                if option in ("-MD", "-MMD", "-MF"):
                    return value
    return None


def _note(command: Command) -> Path:
    key = [str(command.directory), str(command.source), *command.arguments, *map("=".join, command.environment)]
    name = hashlib.sha256(os.fsencode("\0".join(key))).hexdigest()
    return cache_folder("dependencies") / f"{name}.json"


def _remembered(note: Path, snapshot: Snapshot) -> tuple[str, ...] | None:
    try:
        rows = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(rows, dict) or any(snapshot.digest(path) != digest for path, digest in rows.items()):
        return None
    return tuple(rows)
