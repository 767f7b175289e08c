"""ipbp.toml: what a project tells ipbp about its build, where nothing else does.

    [build]
    compile_commands = "out/compile_commands.json"     # where the compilation database is, or:
    command = ["make", "-j2"]                          # brings the objects up to date; run without a shell
    directory = "."                                    # in which, relative to this file
    objects = { "src/{name}.c" = "obj/{name}.o" }      # where the object of a source is

In `objects`, `{name}` stands for any part of a path, slashes included. Unknown keys are errors: a misspelt one would
otherwise be a setting that never works.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipbp.errors import IpbpError

NAME = "ipbp.toml"


@dataclass(frozen=True, slots=True)
class OwnBuild:
    """The project's build command. `file`: the ipbp.toml. `objects`: (pattern of sources, pattern of objects), both
    absolute."""

    file: Path
    directory: Path
    command: tuple[str, ...]
    objects: tuple[tuple[str, str], ...]

    def object_of(self, source: Path) -> Path | None:
        """Where the object of a source is, by the first pattern that fits; None when no pattern does."""
        for pattern, target in self.objects:
            match = re.fullmatch(re.escape(pattern).replace(re.escape("{name}"), "(.+)", 1), str(source), re.DOTALL)
            if match:
                return Path(target.replace("{name}", match[1]) if match.groups() else target)
        return None


@dataclass(frozen=True, slots=True)
class Config:
    file: Path
    compile_commands: Path | None
    own: OwnBuild | None


def find_config(starts: Iterable[Path]) -> Path | None:
    """The nearest ipbp.toml upwards of these folders, which belongs to the user, or to root."""
    for start in starts:
        for folder in (start, *start.parents):
            path = folder / NAME
            try:
                owner = path.stat().st_uid
            except OSError:
                continue
            if os.geteuid() == 0 or owner in (os.geteuid(), 0):
                return path
    return None


def read_config(path: Path) -> Config:
    """The settings. `config-malformed` for what is no TOML, has unknown keys or values of the wrong kind."""
    try:
        with path.open("rb") as file:
            rows = tomllib.load(file)
    except OSError as error:
        raise _malformed(path, f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _malformed(path, str(error)) from error
    _expect(path, rows, {"build"}, "")
    build = rows.get("build", {})
    if not isinstance(build, dict):
        raise _malformed(path, "'build' is no table")
    _expect(path, build, {"command", "directory", "objects", "compile_commands"}, "build.")
    folder = path.parent
    database = _text(path, build, "compile_commands")
    return Config(path, _join(folder, database) if database else None, _own(path, build))


def _own(path: Path, build: dict[str, Any]) -> OwnBuild | None:
    command = build.get("command")
    if command is None:
        return None
    if not isinstance(command, list) or not command or not all(isinstance(word, str) and word for word in command):
        raise _malformed(path, "'build.command' is no list of words")
    objects = build.get("objects")
    if not isinstance(objects, dict) or not objects or not all(isinstance(v, str) for v in objects.values()):
        raise _malformed(path, "'build.objects' does not say where the object of each source is")
    for pattern, target in objects.items():
        if pattern.count("{name}") > 1 or target.count("{name}") > pattern.count("{name}"):
            raise _malformed(path, f"'{{name}}' in 'build.objects' must stand once on both sides: {pattern!r}")
    directory = _join(path.parent, _text(path, build, "directory") or ".")
    rows = tuple((str(_join(path.parent, p)), str(_join(path.parent, t))) for p, t in objects.items())
    return OwnBuild(path, directory, tuple(command), rows)


def _expect(path: Path, table: dict[str, Any], keys: set[str], prefix: str) -> None:
    unknown = sorted(set(table) - keys)
    if unknown:
        known = ", ".join(f"'{prefix}{key}'" for key in sorted(keys))
        raise _malformed(path, f"'{prefix}{unknown[0]}' is no setting; there are {known}")


def _text(path: Path, table: dict[str, Any], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise _malformed(path, f"'build.{key}' is no text")
    return value


def _join(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(os.path.join(folder, name)))


def _malformed(path: Path, what: str) -> IpbpError:
    return IpbpError(
        "config-malformed", f"{path}: {what}", "Correct the file; docs/build.md shows all that can be said."
    )
