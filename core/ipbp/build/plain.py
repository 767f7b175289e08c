"""Units that are compiled without optimisation on request, so that a debugger shows all of what they do."""

from __future__ import annotations

from pathlib import Path

from ipbp.build.command import Command

# What comes last counts. Without optimisation _FORTIFY_SOURCE is a warning, which may be an error.
PLAIN = ("-O0", "-g", "-fno-omit-frame-pointer", "-U_FORTIFY_SOURCE")
"""For gcc and clang, behind the flags of the unit's own command."""


def is_meant(name: str, command: Command) -> bool:
    """Whether this is a name of the command's source: its path, or an end of it (`draw.c`, `src/draw.c`)."""
    parts, wanted = command.source.parts, Path(name).parts
    return bool(wanted) and (str(command.source) == name or parts[-len(wanted) :] == wanted)
