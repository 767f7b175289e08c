"""Folders and files of ipbp's own: nobody else can read them; what others could have written is not believed.

They say what to write into a process and which programs of a project may be run, so a folder that others can change is
as good as an attack. Objects and journals hold the user's code and data, hence 0600.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def private_folder(path: Path) -> bool:
    """Make the folder when it is missing; whether it is one that only we can write to. Errors: OSError."""
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and is_ours(status)


def is_ours(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to us, and nobody else can write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE


def close_to_others(path: Path) -> None:
    """Take away what others may do with a folder of ours. Errors: OSError."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & 0o077:
        path.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """The file with this text, mode 0600 when it is made. Errors: OSError."""
    with os.fdopen(os.open(path, _flags(os.O_WRONLY | os.O_TRUNC), 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def append_private(path: Path) -> BinaryIO:
    """The file, made when it is missing, to append to. Errors: OSError."""
    return os.fdopen(os.open(path, _flags(os.O_WRONLY | os.O_APPEND), 0o600), "ab")


def _flags(access: int) -> int:
    return access | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
