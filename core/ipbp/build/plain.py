"""Units that are compiled without optimisation on request, so that a debugger shows all of what they do."""

from __future__ import annotations

from pathlib import Path

# What comes last counts. Without optimisation _FORTIFY_SOURCE is a warning, which may be an error.
PLAIN = ("-O0", "-g", "-fno-omit-frame-pointer", "-U_FORTIFY_SOURCE")
"""For gcc and clang, behind the flags of the unit's own command."""


def is_end_of(name: str, path: str) -> bool:
    """Whether this is a name of the file: its path, or an end of it (`draw.c`, `src/draw.c`)."""
    parts, wanted = Path(path).parts, Path(name).parts
    return bool(wanted) and (path == name or parts[-len(wanted) :] == wanted)
