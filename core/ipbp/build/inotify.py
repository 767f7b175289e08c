"""What the kernel tells of files and folders (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

OPENED, CLOSED = 0x20, 0x8  # IN_OPEN, IN_CLOSE_WRITE of inotify.h
_AT_ONCE = 1 << 16  # bytes
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, size of the name that follows


class Inotify:
    """What is watched. `with` closes it. Errors: OSError, where the kernel watches no more."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise _failed()

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *unused: object) -> None:
        os.close(self._file)

    def fileno(self) -> int:
        """Is ready to be read when there are events."""
        return int(self._file)

    def watch(self, path: Path | str, events: int) -> int:
        """The number of the watch, one for each file or folder; of a folder the events are those of what is in it.
        Errors: OSError."""
        number: int = self._libc.inotify_add_watch(self._file, os.fsencode(path), events)
        if number < 0:
            raise _failed()
        return number

    def events(self) -> Iterator[tuple[int, str]]:
        """What came since: numbers of watches, with the names of files in folders."""
        try:
            content = os.read(self._file, _AT_ONCE)
        except BlockingIOError:
            return
        place = 0
        while place < len(content):
            number, _mask, _cookie, size = _EVENT.unpack_from(content, place)
            place += _EVENT.size + size
            yield number, os.fsdecode(content[place - size : place].rstrip(b"\0"))


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
