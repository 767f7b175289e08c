"""What a machine that is short of something says, in words that tell what to do: it is no bug of anybody's."""

from __future__ import annotations

import errno
import os
from typing import Optional

from ipbp.errors import IpbpError

_DISK = "Make room there, or set XDG_CACHE_HOME and XDG_STATE_HOME to folders elsewhere; then try again."
_ADVICE = {
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
    errno.EROFS: "Set XDG_CACHE_HOME and XDG_STATE_HOME to folders that you may write to; then try again.",
    errno.EMFILE: "Raise the limit (`ulimit -n`) in the shell that starts the debugger.",
    errno.ENFILE: "Close something: all open files of this machine together are too many.",
    errno.ENOMEM: "Give it more memory (`ulimit -v`, the limits of its container), or close something.",
    errno.EAGAIN: "Raise the limit of processes (`ulimit -u`), or close something.",
}


def shortage(error: BaseException) -> Optional[IpbpError]:
    """The error to show when this failure means that something is used up or may not be written to, else None."""
    if isinstance(error, MemoryError):
        return _short("no memory is left", errno.ENOMEM)
    if not isinstance(error, OSError) or error.errno not in _ADVICE:
        return None
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    return _short(f"{where}{os.strerror(error.errno)}", error.errno)


def full_disk(folder: str) -> Optional[IpbpError]:
    """The same, when there is no room in this folder."""
    room = os.statvfs(folder)
    if room.f_bavail and (room.f_favail or not room.f_files):
        return None
    return _short(f"{folder}: {os.strerror(errno.ENOSPC)}", errno.ENOSPC)


def require_proc() -> None:
    """`proc-missing` where the kernel does not show its processes."""
    if not os.path.exists("/proc/self/stat"):
        raise IpbpError(
            "proc-missing",
            "/proc is not mounted here, by which ipbp looks at the program",
            "Mount it (`mount -t proc proc /proc`), or start the container with it.",
        )


def _short(fact: str, number: int) -> IpbpError:
    return IpbpError("machine-short", fact, _ADVICE[number])
