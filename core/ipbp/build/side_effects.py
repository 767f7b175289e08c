"""Everything that a recorded compile would write besides its object, taken out of the command.

A replayed compile must leave the user's tree as it is. Compilers write on the side at many places: dependency files,
saved temporaries, dumps, listings, traces. None of these options changes the code. Sources: GCC manual, "Developer
Options" and "Preprocessor Options"; clang, `clang --help-hidden`; GNU as, "Command-Line Options".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ipbp.build.options import Argument, words

# Dependency output: ours takes its place.
_DEPENDENCIES = words(
    """-MD -MMD -MP -MG -MV -MF -MT -MQ -MJ --dependencies --user-dependencies --write-dependencies
    --write-user-dependencies --print-missing-file-dependencies"""
)
# Files beside the object, in the working directory, or at a place that the option names.
_FILES = words(
    """-o --output -save-temps --save-temps -save-stats --save-stats -dumpdir -dumpbase -dumpbase-ext --dumpdir
    --dumpbase --dumpbase-ext -aux-info -fstack-usage -fcallgraph-info -ftime-trace -fsave-optimization-record
    -foptimization-record-file -serialize-diagnostics --serialize-diagnostics -fcrash-diagnostics-dir
    -index-store-path -fprofile-note -fmodule-output -fproc-stat-report -time
    -gz"""
)
_WRITES = re.compile(r"-fdump-|-d[A-Za-z]{1,2}$|-fopt-info.*=|-fdiagnostics-format=.*-file$|-fdiagnostics-add-output=")
# Options of the compiler proper that name a file or a rule of the dependency output (gcc -v shows them).
_INNER_WITH_FILE = frozenset({"-MD", "-MMD", "-MF", "-MT", "-MQ", "-dependency-file", "-header-include-file"})


def without_own_files(arguments: Sequence[Argument]) -> list[Argument]:
    """The arguments that say how to compile, without those that say what to write where."""
    kept = []
    skip_value_of = ""
    for row in arguments:
        if row.name in _DEPENDENCIES or row.name in _FILES or _WRITES.match(row.words[0]):
            continue
        if row.name == "-gsplit-dwarf":
            # The debugger is given one file, so its debug information must be in it.
            kept.append(Argument("-g", None, ("-g",)))
            continue
        if row.name in ("-Xpreprocessor", "-Xclang") and row.value is not None:
            if skip_value_of == row.name:
                skip_value_of = ""
                continue
            if row.value in _INNER_WITH_FILE or row.value in ("-MP", "-MG", "-sys-header-deps"):
                skip_value_of = row.name if row.value in _INNER_WITH_FILE else ""
                continue
        if row.name.startswith(("-Wp,", "-Wa,")):
            kept.extend(_passed_on(row))
            continue
        kept.append(row)
    return kept


def _passed_on(row: Argument) -> list[Argument]:
    """A `-Wp,` or `-Wa,` option without its parts that write dependency files or listings."""
    head, *parts = row.words[0].split(",")
    kept = []
    position = 0
    while position < len(parts):
        part = parts[position]
        if part in (_INNER_WITH_FILE if head == "-Wp" else ("--MD",)):
            position += 2
            continue
        if not (part in ("-MP", "-MG") or (head == "-Wa" and re.match(r"-a[a-z]*=|--MD=", part))):
            kept.append(part)
        position += 1
    if kept == parts:
        return [row]
    return [Argument(head, None, (",".join([head, *kept]),))] if kept else []
