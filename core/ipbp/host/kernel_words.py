"""Words that the kernel keeps for a program, and hands back to it later, without their being in its memory.

What epoll_ctl(2) was given comes back from epoll_wait(2), and the value of a timer with its signal; either may be an
address. The kernel shows both (proc_pid_fdinfo(5), proc_pid_timers(5)). What it keeps for asynchronous input and output
it does not show.
"""

from __future__ import annotations

import os
import re
from typing import Optional

from ipbp.errors import IpbpError
from ipbp.host import procfs

_EPOLL, _URING = "anon_inode:[eventpoll]", "anon_inode:[io_uring]"
_AIO_RING = "/[aio]"  # the mapping that io_setup(2) makes
_EPOLL_DATA = re.compile(r"^tfd:.*\bdata:\s*([0-9a-f]+)", re.MULTILINE)
_TIMER_VALUE = re.compile(r"^signal:\s*\d+/([0-9a-f]+)", re.MULTILINE)


def kept_words(pid: int) -> Optional[list[int]]:
    """All of them; None where there may be some that cannot be seen."""
    try:
        files = {name: _target(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        if _URING in files.values() or any(row.path.startswith(_AIO_RING) for row in procfs.regions(pid)):
            return None
        texts = [_read(f"/proc/{pid}/fdinfo/{name}") for name, target in files.items() if target == _EPOLL]
        found = [int(word, 16) for text in texts for word in _EPOLL_DATA.findall(text)]
        return found + [int(word, 16) for word in _TIMER_VALUE.findall(_read(f"/proc/{pid}/timers"))]
    except (OSError, IpbpError):  # not to be seen by us, or a kernel that does not show its timers
        return None


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # closed since it was listed
        return ""


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()
