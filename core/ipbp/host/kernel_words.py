"""Words that the kernel keeps for a program, and hands back to it later, without their being in its memory.

What epoll_ctl(2) was given comes back from epoll_wait(2), and the value of a timer with its signal; either may be an
address. The kernel shows both (proc_pid_fdinfo(5), proc_pid_timers(5)). What it keeps for asynchronous input and output
it does not show.
"""

from __future__ import annotations

import os
import re
from typing import Callable, Iterable, Iterator, Optional

from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.host.pace import Pace
from ipbp.protocol import Region

_EPOLL, _URING = "anon_inode:[eventpoll]", "anon_inode:[io_uring]"
_AIO_RING = "/[aio]"  # the mapping that io_setup(2) makes
_EPOLL_DATA = re.compile(r"^tfd:.*\bdata:\s*([0-9a-f]+)", re.MULTILINE)
_RING_QUEUE = re.compile(r"^SqMask:", re.MULTILINE)  # in a file of io_uring (io_uring/fdinfo.c)
_TIMER_VALUE = re.compile(r"^signal:\s*\d+/([0-9a-f]+)", re.MULTILINE)


def kept_words(pid: int) -> Optional[list[int]]:
    """All of them of a process of this machine; None where there may be some that cannot be seen."""
    try:
        files = {name: _target(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        if _URING in files.values() or _has_ring(procfs.regions(pid)):
            return None
        texts = [_read(f"/proc/{pid}/fdinfo/{name}") for name, target in files.items() if target == _EPOLL]
        return _words(texts, _read(f"/proc/{pid}/timers"))
    except (OSError, IpbpError):  # not to be seen by us, or a kernel that does not show its timers
        return None


def kept_words_there(
    contents: Callable[[Iterable[str]], Iterator[Optional[bytes]]], pid: int, regions: Iterable[Region], seconds: float
) -> Optional[list[int]]:
    """The same of another machine, of which files are read, by `contents` (None: no such file), and no folders. So each
    file is asked for that the process has room for. None also when that would take longer than so many seconds."""
    pace, texts = Pace(seconds), []
    status, timers = contents(f"/proc/{pid}/{name}" for name in ("status", "timers"))
    room = re.search(rb"^FDSize:\s*(\d+)", status or b"", re.MULTILINE)
    if room is None or timers is None or _has_ring(regions):
        return None
    size = int(room[1])
    for done, text in enumerate(contents(f"/proc/{pid}/fdinfo/{number}" for number in range(size)), 1):
        texts += [] if text is None else [text.decode("ascii", "replace")]
        if not pace.is_kept(done, size):
            return None
    if not texts or any(map(_RING_QUEUE.search, texts)):  # with none, they may not be seen
        return None
    return _words(texts, timers.decode("ascii", "replace"))


def _has_ring(regions: Iterable[Region]) -> bool:
    return any(row.path.startswith((_AIO_RING, _URING)) for row in regions)


def _words(files: Iterable[str], timers: str) -> list[int]:
    found = [int(word, 16) for text in files for word in _EPOLL_DATA.findall(text)]
    return found + [int(word, 16) for word in _TIMER_VALUE.findall(timers)]


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # closed since it was listed
        return ""


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()
