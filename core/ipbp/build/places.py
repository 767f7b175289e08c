"""Where ipbp keeps files of its own: never in the user's tree (XDG Base Directory Specification 0.8).

The cache may be thrown away at any time; the state is what the user told us once and should not be asked again.
Both folders are readable by the user only: objects hold the user's code.
"""

from __future__ import annotations

import os
from pathlib import Path

from ipbp.errors import IpbpError


def cache_folder(*parts: str) -> Path:
    """A folder below $XDG_CACHE_HOME/ipbp, made when it is missing. `folder-unwritable` when that is not possible."""
    return _folder("XDG_CACHE_HOME", ".cache", parts)


def state_folder(*parts: str) -> Path:
    """A folder below $XDG_STATE_HOME/ipbp, likewise."""
    return _folder("XDG_STATE_HOME", os.path.join(".local", "state"), parts)


def _folder(variable: str, default: str, parts: tuple[str, ...]) -> Path:
    home = os.environ.get(variable, "")
    # A relative path in these variables is invalid and to be ignored, as the specification says.
    base = Path(home) if os.path.isabs(home) else Path(os.path.expanduser("~"), default)
    folder = base.joinpath("ipbp", *parts)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise IpbpError(
            "folder-unwritable",
            f"{folder}: the folder cannot be made: {error.strerror}",
            f"Set {variable} to a folder that you may write to.",
        ) from error
    return folder
