"""The compilation database: how the user's own build compiles each source (LLVM, "JSON Compilation Database").

It is found upwards of the program and of its sources, or in a build folder beside them. It is not trusted: what
it names is checked by `trust` before anything of it is run. One source may stand in it several times, once for each
target that is built from it; all of its entries are kept.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipbp.build.command import Command, split_compiler
from ipbp.build.options import Argument, arguments_of, expanded, words
from ipbp.build.shell import NeedsShell, simple_command, without_environment
from ipbp.errors import IpbpError, Refusal

NAME = "compile_commands.json"
BUILD_FOLDERS = ("build", "builddir", "_build", "out", "cmake-build-debug")
"""Looked into at every folder on the way up (CMake's, meson's and IDEs' usual names)."""


def find_databases(program: Path, sources: Iterable[Path]) -> list[Path]:
    """Compilation databases near a program and its source folders, nearest first, each once.

    Only files that belong to the user, to the program's owner or to root count: in a shared folder such as /tmp
    anybody could leave one.
    """
    owners = {os.geteuid(), 0, *_owner(program)}
    folders = dict.fromkeys(folder for start in (program.parent, *sources) for folder in (start, *start.parents))
    places = (folder / build / NAME for folder in folders for build in ("", *BUILD_FOLDERS))
    return [path for path in dict.fromkeys(places) if owners.intersection(_owner(path))]


def given_database(path: Path) -> Path:
    """The database that the user named: the file, or the folder that holds it. `compile-commands-missing`."""
    candidate = path / NAME if path.is_dir() else path
    if not candidate.is_file():
        raise IpbpError(
            "compile-commands-missing",
            f"{candidate}: there is no such file",
            "Let the build write one: cmake -DCMAKE_EXPORT_COMPILE_COMMANDS=ON, meson, or `bear -- make`.",
        )
    return candidate


def read_database(path: Path) -> tuple[Command, ...]:
    """The compiles of a database, in its order. `compile-commands-malformed`, with the line where it is known.

    An entry that needs a shell comes with its refusal; entries that make no object are left out.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IpbpError(
            "compile-commands-missing", f"{path}: cannot be read: {error.strerror}", "Check its permissions."
        ) from error
    return _parse(content, path)


@functools.lru_cache(maxsize=4)
def _parse(content: bytes, path: Path) -> tuple[Command, ...]:
    text = content.decode("utf-8", "surrogateescape")
    try:
        rows = json.loads(text)
    except RecursionError:
        raise _malformed(path, 1, "it is nested too deeply") from None
    except ValueError as error:
        raise _malformed(path, getattr(error, "lineno", 1), str(getattr(error, "msg", error))) from None
    if not isinstance(rows, list):
        raise _malformed(path, 1, "it is no list of entries")
    commands = []
    for number, row in enumerate(rows):
        fault = _fault(row)
        if fault:
            raise _malformed(path, _line_of_entry(text, number), fault)
        command = _command(row, path.parent)
        if command is not None:
            commands.append(command)
    return tuple(commands)


def _fault(row: Any) -> str:
    if not isinstance(row, dict):
        return "an entry is no object"
    for key in ("directory", "file"):
        if not isinstance(row.get(key), str):
            return f"an entry has no text '{key}'"
    arguments = row.get("arguments")
    if arguments is not None:
        if not isinstance(arguments, list) or not arguments or not all(isinstance(word, str) for word in arguments):
            return "'arguments' of an entry is no list of texts"
    elif not isinstance(row.get("command"), str):
        return "an entry has neither 'command' nor 'arguments'"
    if not isinstance(row.get("output", ""), str):
        return "'output' of an entry is no text"
    if any("\0" in word for word in _texts(row)):
        return "an entry holds a NUL character"
    return ""


def _texts(row: dict[str, Any]) -> Iterator[str]:
    yield from (row[key] for key in ("directory", "file", "command", "output") if isinstance(row.get(key), str))
    yield from row.get("arguments") or ()


def _command(row: dict[str, Any], folder: Path) -> Command | None:
    # None: it makes no object.
    directory = os.path.normpath(os.path.join(folder, row["directory"]))
    source = os.path.normpath(os.path.join(directory, row["file"]))
    refusal = None
    environment: tuple[tuple[str, str], ...] = ()
    if row.get("arguments"):
        line, environment = without_environment(row["arguments"])
    else:
        try:
            simple = simple_command(row["command"])
            line, environment = list(simple.words), simple.environment
            if simple.directory is not None:
                directory = os.path.normpath(os.path.join(directory, simple.directory))
        except NeedsShell as found:
            line = [row["command"]]
            refusal = _needs_shell(source, str(found))
    if not line:
        line, refusal = [""], _needs_shell(source, "no command")
    command = Command(Path(directory), Path(source), None, tuple(line), environment, refusal)
    if refusal is None:
        options = arguments_of(expanded(split_compiler(command)[1], directory))
        if any(option.name in _NO_OBJECT for option in options):
            return None
        output = row.get("output") or _output(command, options)
    else:
        output = row.get("output")
    return replace(command, output=Path(os.path.normpath(os.path.join(directory, output))) if output else None)


# Only preprocesses, checks or prints.
_NO_OBJECT = words("-E -S -M -MM -fsyntax-only --preprocess --assemble --analyze -###")


def _output(command: Command, options: Sequence[Argument]) -> str:
    """What -o says; without it the compiler's default, the source's name with .o in the working directory."""
    if not any(option.name in ("-c", "--compile") for option in options):
        return ""  # it links as well, and the object is a temporary file
    named = [option.value for option in options if option.name in ("-o", "--output") and option.value]
    return named[-1] if named else f"{command.source.stem}.o"


def _needs_shell(source: str, what: str) -> Refusal:
    return Refusal(
        "command-needs-shell",
        f"the recorded compile command holds {what}, which only a shell understands, and ipbp starts none",
        "Record the compiler's own command (`bear -- make` does), or name a build command in ipbp.toml.",
        file=source,
    )


def _malformed(path: Path, line: int, what: str) -> IpbpError:
    return IpbpError(
        "compile-commands-malformed",
        f"{path}:{line}: {what}",
        "Let the build write the file again, or name another one with --compile-commands.",
    )


def _line_of_entry(text: str, number: int) -> int:
    """Line of the entry with this index; only asked for a file that is valid JSON."""
    decoder = json.JSONDecoder()
    position = text.index("[") + 1
    for _ in range(number):
        position = _skip(text, position)
        position = _skip(text, decoder.raw_decode(text, position)[1])
        position += 1  # the comma
    return text.count("\n", 0, _skip(text, position)) + 1


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _owner(path: Path) -> set[int]:
    try:
        return {path.stat().st_uid}
    except OSError:
        return set()
