"""One crate compiled as cargo would, into a folder of ipbp's own, and not linked.

The command is cargo's, word for word, but for where files go, the look of messages, and the linker of a program:
that is a script which writes down the objects that it is given and says that all is well. What rustc knows of the last
compile is in its incremental directory; ours begins as a copy of the user's (rustc replaces those files and never
writes into them, so hard links do), and the first compile is as warm as the user's next one would be, if ours may lie
in the place of the user's (`in_place`).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ipbp.build.cargo_commands import CrateCommand, file_of
from ipbp.build.codegen_units import sessions
from ipbp.build.links import copy_by_links, put_empty, put_link
from ipbp.build.notes import write_whole
from ipbp.build.rustc_recorder import outputs, read_options
from ipbp.build.workshop import Workshop

_LINKER = """#!/bin/sh
# Stands in for the linker: writes down what it is given, keeps the objects of the crate where it is told to, and links
# nothing.
set -e -f
for word in "$@"; do
    case $word in
    @*) echo "ipbp: the list of objects came in a file: $word" >&2; exit 1 ;;
    esac
done
printf '%s\\0' "$@" '' >"$IPBP_OBJECTS/words"
test -n "$IPBP_KEEP" || exit 0
newline='
'
keep() {
    ln -f -- "$@" "$IPBP_OBJECTS/" 2>/dev/null || cp -- "$@" "$IPBP_OBJECTS/"
}
objects=
for word in "$@"; do
    case $word in
    *"$newline"*.rcgu.o) keep "$word" ;;
    *.rcgu.o) objects=$objects$newline$word ;;
    esac
done
IFS=$newline
test -z "$objects" || keep $objects
"""
END = b"\0\0"
"""How the list of words ends when all of it is written."""
_COLOUR = "diagnostic-rendered-ansi"


def prepare(workshop: Workshop, crate: CrateCommand) -> None:
    """Make the folders, the linker's stand-in, and a warm incremental directory for this crate."""
    outputs = workshop.outputs(crate)
    for folder in (workshop.deps, workshop.made, outputs, workshop.incremental):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    put_empty(workshop.objects(crate))
    if not workshop.linker.exists() or workshop.linker.read_text() != _LINKER:
        write_whole(workshop.linker, _LINKER, stat.S_IRWXU)
    for user in sessions(crate):
        ours = workshop.incremental / user.name
        if not ours.exists():
            copy_by_links(user, ours)


def replay_words(
    crate: CrateCommand,
    workshop: Workshop,
    ours: Mapping[str, Path],
    colour: bool = False,
) -> tuple[str, ...]:
    """The argument vector that compiles the crate into the workshop. `ours`: libraries that are to be used instead
    of the user's, by `cargo_commands.file_of` of the user's file."""
    words = [*_redirected(_as_we_want(crate, workshop, colour), workshop, crate, ours)]
    # Searched as well: what the libraries of ours were compiled with. rustc tells them from the user's by their hash.
    return (*words, "-L", f"dependency={workshop.made}")


def words_in_place(crate: CrateCommand, workshop: Workshop, colour: bool = False) -> tuple[str, ...]:
    """The same when the workshop lies in the place of the user's folder, with `in_place.lay_out` done."""
    return tuple(_as_we_want(crate, workshop, colour))


def _as_we_want(crate: CrateCommand, workshop: Workshop, colour: bool) -> list[str]:
    """The command but for where files are."""
    words = [*_without_linking(crate.arguments, colour)]
    # Debug information in files of its own is nothing that a patch could take along.
    words += ["-C", "split-debuginfo=off"] if "-C split-debuginfo" in read_options(words) else []
    if crate.is_linked_here:
        words += ["-C", f"linker={workshop.linker}", "-C", "linker-flavor=gcc", "-C", "strip=none"]
    return words


def is_optimised_crate(arguments: Sequence[str]) -> bool:
    """Whether rustc is asked to optimise; the last option counts."""
    levels = [*read_options(list(arguments)).get("-C opt-level", ())][-1:]
    return levels != ["0"] and (bool(levels) or "-O" in arguments)


def is_incremental(arguments: Sequence[str]) -> bool:
    """Whether rustc keeps the objects that it makes for the next time."""
    return "-C incremental" in read_options(list(arguments))


def asks_for_types(arguments: Sequence[str]) -> bool:
    """Whether rustc is asked for debug information of the level that has types; the last option counts."""
    levels = [*read_options(list(arguments)).get("-C debuginfo", ())][-1:]
    return levels in (["2"], ["full"]) or (not levels and "-g" in arguments)


def printed(output: str) -> str:
    """What rustc would print for a human: of its JSON lines the texts of the messages (rustc book, "JSON Output")."""
    found = []
    for line in output.splitlines(keepends=True):
        try:
            row = json.loads(line) if line.startswith("{") else line
        except ValueError:
            row = line
        found.append(row if isinstance(row, str) else row.get("rendered") or "")
    return "".join(found)


def replay_environment(
    crate: CrateCommand, workshop: Workshop, keeps: bool, seen_as: Path | None = None
) -> dict[str, str]:
    """`keeps`: the objects of a program are kept for us, and not only in the incremental directory. `seen_as`: where
    the compiler finds the workshop, if that is another place."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RUSTC_WRAPPER", "CARGO_MAKEFLAGS")}
    # Under the name by which rustc has its files: there are no hard links from one mount to another.
    objects = workshop.objects(crate)
    objects = objects if seen_as is None else seen_as / objects.relative_to(workshop.folder)
    ours = {"IPBP_OBJECTS": str(objects), "IPBP_KEEP": "1" if keeps else ""}
    return {**kept, **dict(crate.environment), **ours}


def keep_product(crate: CrateCommand, workshop: Workshop) -> None:
    """Keep the library that was just made, with what is only for compilers of it."""
    for name in outputs(read_options(list(crate.arguments))):
        made = workshop.outputs(crate) / name
        if name.endswith((".rlib", ".rmeta")) and made.exists():
            put_link(made, workshop.made / name)


def _without_linking(arguments: Sequence[str], colour: bool) -> Iterator[str]:
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--json", "--diagnostic-width"):
            # Some of what cargo wants to be told counts for rustc as another way to compile, and what it knows of the
            # last compile as void.
            wanted = (value if equals else next(words)).split(",")
            wanted = [row for row in wanted if row != _COLOUR] + [_COLOUR] * colour
            if name == "--json":
                yield f"--json={','.join(wanted)}"
        elif word == "-C":
            option = next(words)
            if not option.startswith(("linker=", "link-arg", "strip=", "linker-flavor=")):
                yield from ("-C", option)
        else:
            yield word


def _redirected(
    arguments: Sequence[str], workshop: Workshop, crate: CrateCommand, ours: Mapping[str, Path]
) -> Iterator[str]:
    words = iter(arguments)
    for word in words:
        if word == "--out-dir":
            next(words)
            yield from ("--out-dir", str(workshop.outputs(crate)))
        elif word == "-C":
            option = next(words)
            yield from ("-C", f"incremental={workshop.incremental}" if option.startswith("incremental=") else option)
        elif word == "--extern":
            name, _, path = next(words).partition("=")
            yield from ("--extern", f"{name}={_ours(path, ours)}" if path else name)
        else:
            yield word


def _ours(path: str, ours: Mapping[str, Path]) -> str:
    replacement = ours.get(file_of(path))
    return path if replacement is None else f"{file_of(str(replacement))}{Path(path).suffix}"
