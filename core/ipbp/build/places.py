"""Where ipbp keeps files of its own: never in the user's tree (XDG Base Directory Specification 0.8).

The cache may be thrown away at any time; the state is what the user told us once and should not be asked again.
Both folders are the user's only: objects hold the user's code, and what is kept is believed the next time.
"""

from __future__ import annotations

import os
from pathlib import Path

from ipbp.errors import IpbpError
from ipbp.host.private import close_to_others, private_folder


def cache_folder(*parts: str) -> Path:
    """A folder below $XDG_CACHE_HOME/ipbp, made when it is missing.

    Errors: `folder-unwritable` when it cannot be made, `folder-untrusted` when somebody else could have written it.
    """
    return _folder("XDG_CACHE_HOME", ".cache", parts)


def state_folder(*parts: str) -> Path:
    """A folder below $XDG_STATE_HOME/ipbp, likewise."""
    return _folder("XDG_STATE_HOME", os.path.join(".local", "state"), parts)


def _folder(variable: str, default: str, parts: tuple[str, ...]) -> Path:
    home = os.environ.get(variable, "")
    # A relative path in these variables is invalid and to be ignored, as the specification says.
    base = Path(home) if os.path.isabs(home) else Path(os.path.expanduser("~"), default)
    folder = base / "ipbp"
    try:
        base.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            close_to_others(folder)  # an older version left it to the umask
        is_ours = private_folder(folder)
        for part in parts:
            folder /= part
            is_ours = is_ours and private_folder(folder)
    except OSError as error:
        raise IpbpError(
            "folder-unwritable",
            f"{folder}: the folder cannot be made: {error.strerror}",
            f"Set {variable} to a folder that you may write to.",
        ) from error
    if not is_ours:
        raise IpbpError(
            "folder-untrusted",
            f"{folder} is not a folder that only you can write to, so what is kept there is not believed",
            "Remove it, or run ipbp as the user that it belongs to.",
        )
    return folder
