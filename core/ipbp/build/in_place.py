"""ipbp's folder in the place of the user's, for one compiler alone.

rustc takes another folder to write to, and another one where libraries are, for another way to compile, and what it
knows of the last compile for void: the names of its files are among what its queries depend on (rustc_session,
`OutputFilenames`). So where the kernel allows it, the compiler runs with mounts of its own (mount_namespaces(7),
user_namespaces(7)), in which our folder lies where the user's is, with all libraries under the names that they have
there. Nobody else sees that, and it ends with the compiler. Where it is not allowed (in some containers), the first
compile of a crate generates all of its code.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ipbp.build.cargo_commands import CrateCommand, file_of
from ipbp.build.links import put_link
from ipbp.build.rustc_recorder import outputs, read_options
from ipbp.build.workshop import Workshop, profile_folder

_BUILD = "build"
"""Below the user's folder: what build scripts made."""
_LIBRARIES = (".rlib", ".rmeta", ".so")
_SCRIPT = """\
ours=$1 user=$2 build=$3
shift 3
if test -d "$build"; then mount --bind "$build" "$ours/build"; fi
mount --rbind "$ours" "$user"
exec "$@"
"""
_TIME_LIMIT = 10.0
"""Seconds for the trial."""


@cache
def is_possible() -> bool:
    """Whether a process of ours may have mounts of its own. It is tried once."""
    with tempfile.TemporaryDirectory() as name:
        ours, user = Path(name, "ours"), Path(name, "user")
        user.mkdir()
        words = in_place(ours, user, ["test", "-d", str(user / _BUILD)], False)
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIME_LIMIT)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


def in_place(ours: Path, user: Path, words: Sequence[str], has_made: bool) -> list[str]:
    """The words that run a program with our folder in the place of the user's. Makes what is mounted upon. `has_made`:
    the program reads what build scripts made."""
    (ours / _BUILD).mkdir(mode=0o700, parents=True, exist_ok=True)
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    build = str(user / _BUILD) if has_made else ""
    return ["unshare", *own, "--mount", "sh", "-e", "-c", _SCRIPT, "sh", str(ours), str(user), build, *words]


def reads_made(crate: CrateCommand) -> bool:
    """Whether a crate reads what build scripts made, its own or those of what it is linked with: one mount more takes
    the time of two small programs."""
    made = str(profile_folder(crate) / _BUILD)
    return any(made in word for word in crate.arguments) or any(made in value for _, value in crate.environment)


def lay_out(crate: CrateCommand, workshop: Workshop, ours: Mapping[str, Path]) -> bool:
    """Put the libraries that the crate is compiled with into the workshop: the user's as hard links, `ours` as in
    `rustc_replay.replay_words`. What the crate itself will be is taken away, for a compiler might write into the
    user's file. False when there are no hard links from there to here, or the user's build is at work there."""
    try:
        return _lay_out(crate, workshop, ours)
    except OSError:
        return False


def _lay_out(crate: CrateCommand, workshop: Workshop, ours: Mapping[str, Path]) -> bool:
    user = profile_folder(crate) / workshop.deps.name
    own = outputs(read_options(list(crate.arguments)))
    wanted: dict[str, Path] = {}
    for entry in os.scandir(user):
        if entry.name.startswith("lib") and entry.name.endswith(_LIBRARIES) and entry.name not in own:
            made = ours.get(file_of(entry.path))
            wanted[entry.name] = Path(entry.path) if made is None else made.with_suffix(Path(entry.name).suffix)
    if os.stat(user).st_dev != os.stat(workshop.deps).st_dev:
        return False
    there = {entry.name: entry.inode() for entry in os.scandir(workshop.deps)}
    for name, source in wanted.items():
        if there.get(name) != os.stat(source).st_ino:
            put_link(source, workshop.deps / name)
    for name in there.keys() - wanted.keys():
        if name.startswith("lib"):
            (workshop.deps / name).unlink()
    return True
