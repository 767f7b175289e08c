"""One recorded compile, and how it is made into a compile that only ipbp sees.

The new object has to be what the user's own build would make of the edited source, so the command is replayed as it
was recorded: same compiler, same directory, same order. Three things change. The object, and everything that the
compiler would write next to it or into its working directory, goes into a folder of ours; dependencies are written
where we look for them; and every function and variable gets a section of its own, so that an edit of one function
moves no other (the flags change no function's code, only where it stands).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ipbp.build.options import TERMINATOR, Argument, arguments_of, expanded, words, words_of
from ipbp.build.precompiled import QUIET, first_header, may_use_precompiled, without_precompiled
from ipbp.build.side_effects import without_own_files
from ipbp.build.snapshot import Snapshot
from ipbp.errors import Refusal

SECTION_FLAGS = ("-ffunction-sections", "-fdata-sections")
LAUNCHERS = frozenset({"ccache", "sccache", "distcc", "icecc", "icecream"})
"""Programs that run the compiler named behind them; kept in the command."""


@dataclass(frozen=True, slots=True)
class Command:
    """How one source is compiled. `directory`, `source` and `output` are absolute; `output` is the object in the
    build tree, if it is known. `arguments`: the whole command, launcher and compiler first. `environment`: set for
    this compile in addition. `refusal`: why this command cannot be replayed at all. `notes`: what the user should
    know about where it comes from."""

    directory: Path
    source: Path
    output: Path | None
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    refusal: Refusal | None = None
    notes: tuple[str, ...] = ()


def for_patch(command: Command, object: Path, depfile: Path, flags: Sequence[str] = ()) -> tuple[str, ...]:
    """The argument vector that compiles `command` into `object` and its dependencies into `depfile`, and writes
    nothing else outside their folder. `flags` come last. Both paths are absolute. Ask `refusals` first."""
    ours = ["-c"]
    if not is_assembly(command.source):
        ours += SECTION_FLAGS
    if _lto(arguments_of(expanded(split_compiler(command)[1], str(command.directory)))):
        ours.append("-fno-lto")
    if command.source.suffix != ".s":
        ours += ["-MD", "-MF", str(depfile)]
    return _rewritten(command, [*ours, *flags, "-o", str(object)])


def for_listing(command: Command) -> tuple[str, ...]:
    """The argument vector that prints a make rule with the files that the source is made from, and no system
    headers, to standard output, and writes nothing."""
    return _rewritten(command, ["-MM", "-w"])


def _rewritten(command: Command, ours: list[str]) -> tuple[str, ...]:
    program, rest = split_compiler(command)
    recorded = arguments_of(rest)
    # Response files stay as they are unless something in them has to go: the list may be too long without them.
    rows = recorded
    if not _response_files_are_clean(recorded, command):
        rows = arguments_of(expanded(rest, str(command.directory)))
    kept = [row for row in _one_input(without_own_files(rows), command) if row.name not in ("-c", "--compile")]
    first: tuple[str, ...] = ()
    if has_precompiled(command, Snapshot()):
        first, ours = ("-include", str(first_header())), [*ours, QUIET]
    kept = without_precompiled(kept, command.directory, _is_clang(program))
    return (*program, *first, *words_of(_before_terminator(kept, arguments_of(ours))))


def has_precompiled(command: Command, snapshot: Snapshot) -> bool:
    """Whether gcc may find a precompiled header for the unit."""
    program, rest = split_compiler(command)
    if is_assembly(command.source) or not program or _is_clang(program):
        return False  # a build of the user's own has no command of the compiler's
    rows = arguments_of(expanded(rest, str(command.directory)))
    return may_use_precompiled(rows, command.directory, command.source, snapshot)


def _is_clang(program: Sequence[str]) -> bool:
    return bool(program) and "clang" in Path(program[-1]).name


def refusals(command: Command) -> tuple[Refusal, ...]:
    """Everything that keeps this command from giving an object that can be patched in."""
    if command.refusal is not None:
        return (command.refusal,)
    rows = arguments_of(expanded(split_compiler(command)[1], str(command.directory)))
    names = {row.name for row in rows}
    found = []
    counters = sorted(names & _COUNTERS)
    if counters:
        found.append(
            Refusal(
                "gcov",
                f"the unit is compiled with {counters[0]}, and new code cannot share the counters of the running code",
                "Build the program without coverage or profile generation.",
                file=str(command.source),
            )
        )
    found += _instrumented(rows, command)
    found += _of_modules(rows, command)
    if _lto(rows) and not _last(rows, "-ffat-lto-objects", "-fno-fat-lto-objects"):
        found.append(
            Refusal(
                "lto",
                "the unit is compiled with -flto, so the program's code was made at link time from all units together",
                "Build the program without -flto.",
                file=str(command.source),
            )
        )
    return tuple(found)


def _instrumented(rows: Sequence[Argument], command: Command) -> list[Refusal]:
    """Sanitizers whose runtime must know every variable and every thread's state; those of undefined behaviour only
    call what reports it."""
    on: dict[str, None] = {}
    for row in rows:
        name, _, kinds = row.words[0].partition("=")
        for kind in kinds.split(","):
            if name == "-fsanitize":
                on[kind] = None
            elif name == "-fno-sanitize":
                on = {} if kind == "all" else {key: None for key in on if key != kind}
    chosen = [kind for kind in on if kind.startswith(_SANITIZERS)]
    if not chosen:
        return []
    return [
        Refusal(
            "sanitizer",
            f"the unit is compiled with -fsanitize={chosen[0]}, whose runtime is told what there is when it is loaded",
            "Build the program without it.",
            file=str(command.source),
        )
    ]


def _of_modules(rows: Sequence[Argument], command: Command) -> list[Refusal]:
    said = any(row.words[0].startswith(_MODULES) for row in rows)
    if not said and command.source.suffix not in (".cppm", ".ixx"):
        return []
    return [
        Refusal(
            "modules",
            "the unit is a part of C++ modules, and in which order they are compiled is not recorded in its command",
            "Edit files that are compiled without modules, or restart the program.",
            file=str(command.source),
        )
    ]


_SANITIZERS = ("address", "hwaddress", "kernel-", "memory", "memtag", "thread", "dataflow", "safe-stack", "cfi")
_MODULES = ("-fmodules-ts", "-fmodule-file", "-fmodule-mapper", "-fprebuilt-module-path", "--precompile")


def is_optimised(command: Command) -> bool:
    """Whether the compiler is asked to optimise; the last -O counts."""
    rows = arguments_of(expanded(split_compiler(command)[1], str(command.directory)))
    levels = [word for row in rows if (word := row.words[0]).startswith("-O")]
    return bool(levels) and levels[-1] != "-O0"


def split_compiler(command: Command) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The launchers with the compiler, and its arguments."""
    row = command.arguments
    end = 1
    while end < len(row) and os.path.basename(row[end - 1]) in LAUNCHERS and not row[end].startswith("-"):
        end += 1
    return row[:end], row[end:]


_COUNTERS = words(
    """--coverage -coverage -fprofile-arcs -ftest-coverage -fprofile-generate -fprofile-instr-generate
    -fcs-profile-generate -fcoverage-mapping"""
)
_INPUT_SUFFIXES = words(
    """.c .i .ii .C .cc .cp .cpp .cxx .c++ .CPP .cppm .ixx .m .mm .M .mi .mii .s .S .sx .o .a .so .lo .la .f .f90
    .F90 .F"""
)


def _one_input(rows: Sequence[Argument], command: Command) -> list[Argument]:
    """Without the other inputs of a command that compiles several sources at once, or links as well."""
    if not any(_is_the_source(row, command) for row in rows):
        return list(rows)
    return [
        row
        for row in rows
        if row.name or Path(row.value or "").suffix not in _INPUT_SUFFIXES or _is_the_source(row, command)
    ]


def _is_the_source(row: Argument, command: Command) -> bool:
    if row.name or row.value is None:
        return False
    path = os.path.normpath(os.path.join(command.directory, row.value))
    return path == str(command.source) or os.path.realpath(path) == os.path.realpath(command.source)


def _response_files_are_clean(recorded: Sequence[Argument], command: Command) -> bool:
    inside = [row.words[0] for row in recorded if not row.name and row.words[0].startswith("@")]
    rows = arguments_of(expanded(inside, str(command.directory)))
    return without_own_files(rows) == rows


def _before_terminator(rows: list[Argument], ours: list[Argument]) -> list[Argument]:
    at = next((index for index, row in enumerate(rows) if row.name == TERMINATOR), len(rows))
    return rows[:at] + ours + rows[at:]


def _lto(rows: Sequence[Argument]) -> bool:
    return _last(rows, "-flto", "-fno-lto")


def _last(rows: Sequence[Argument], on: str, off: str) -> bool:
    """Of a pair of opposite options the last one counts; off when neither is there."""
    return next((row.name == on for row in reversed(rows) if row.name in (on, off)), False)


def is_assembly(source: Path) -> bool:
    """By its name, as compilers tell it."""
    return source.suffix in (".s", ".S", ".sx")
