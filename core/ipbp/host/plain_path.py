"""A path that any debugger's command line takes, for a file of any name.

gdb ends a command at a line break, and takes text only, which not every name is (path_resolution(7): any bytes but
zero and the slash). The folder of such a file is held open, and named by our descriptor of it (proc_pid_fd(5)).
"""

from __future__ import annotations

import os

_open: dict[str, int] = {}
"""Folder -> descriptor, for as long as we live: debuggers read files again later."""


def plain_path(path: str) -> str:
    """The path itself when all of it is printable ASCII, else another one to the same file."""
    if path.isascii() and path.isprintable():
        return path
    folder, name = os.path.split(path)
    if folder not in _open:
        _open[folder] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/{os.getpid()}/fd/{_open[folder]}/{name}"
