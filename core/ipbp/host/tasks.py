"""The threads of a process of this machine: which there are, where each is stopped, and who traces them (proc(5)).

The kernel answers this in a few microseconds a thread, and for all threads alike. A debugger takes up to a hundred
times as long for some, because it looks at the whole innermost frame to say where a thread is.
"""

from __future__ import annotations

import ctypes
import os
from typing import Optional

from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.host.inferior import Thread

_TGKILL = 234  # arch/x86/entry/syscalls/syscall_64.tbl


def stopped_threads(pid: int) -> list[Thread]:
    """Every live thread with where it is stopped, in the order of their ids.

    Errors: `inferior-running` when one of them is not stopped, `inferior-gone`, `inferior-permission`.
    """
    found = []
    for number in _listed(pid):
        where = _where(pid, number)
        # One that has ended is nowhere; looking for its state takes as long as all the rest.
        if (where is None or where.pc == 0) and not is_alive(pid, number):
            continue
        if where is None:
            raise IpbpError(
                "inferior-running",
                f"thread {number} of process {pid} is running",
                "Stop all threads of the program and try again.",
            )
        found.append(Thread(number, where.pc, where.stack_pointer, where.number))
    if not found:
        raise IpbpError("inferior-gone", f"process {pid} has ended", "Start it again.")
    return found


def live_threads(pid: int) -> list[int]:
    """Ids of the threads that have not ended. A main thread that has ended stays in /proc as a zombie."""
    alive = [number for number in _listed(pid) if is_alive(pid, number)]
    if not alive:
        raise IpbpError("inferior-gone", f"process {pid} has ended", "Start it again.")
    return alive


def has_ended(pid: int) -> bool:
    """Whether no thread of the process is alive."""
    try:
        return not live_threads(pid)
    except IpbpError:
        return True


def is_ending(pid: int) -> bool:
    """Whether the process has ended or is about to. Its memory is the first thing that goes (do_exit() in
    kernel/exit.c), and whoever looks at it just then fails in some way or other."""
    try:
        return not procfs.regions(pid)
    except IpbpError as error:
        return error.code == "inferior-gone"


def is_alive(pid: int, thread: int) -> bool:
    """Whether this is a thread of the process that has not ended."""
    return procfs.state(pid, thread) not in (None, "Z", "X")


def executable(pid: int) -> str:
    """Path of the program, without the mark that the kernel adds when its file was replaced meanwhile."""
    try:
        path = os.readlink(f"/proc/{pid}/task/{_one(pid)}/exe")
    except OSError as error:
        raise IpbpError(
            "inferior-permission",
            f"the kernel does not say which program process {pid} runs: {error.strerror}",
            "Run the debugger as the user that the process belongs to, or as root.",
        ) from error
    mark = " (deleted)"
    return path[: -len(mark)] if path.endswith(mark) else path


def program(pid: int) -> Optional[tuple[int, int]]:
    """What tells the file that a process runs from others, its device and number; None where that cannot be seen."""
    try:
        status = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def tracer(pid: int) -> int:
    """Process id of the debugger (or its server) that traces the process; 0 when there is none."""
    return int(status_field(pid, _one(pid), "TracerPid"))


def parent(pid: int) -> int:
    """Process id of the parent."""
    return int(status_field(pid, _one(pid), "PPid"))


def is_attached(pid: int) -> bool:
    """Whether its debugger came when it was running already: who traces it is not its parent."""
    rows = procfs.status(pid, _one(pid))
    return rows["PPid"] != rows["TracerPid"]


def blocks_signal(pid: int, thread: int, number: int) -> bool:
    """Whether the thread has the signal blocked (SigBlk, a mask in which bit 0 is signal 1)."""
    return bool(blocked_signals(pid, thread) >> (number - 1) & 1)


def has_pending(pid: int, thread: int, number: int) -> bool:
    """Whether a signal that was sent to this thread alone waits for it (SigPnd, a mask like SigBlk)."""
    return bool(int(status_field(pid, thread, "SigPnd"), 16) >> (number - 1) & 1)


def send(pid: int, thread: int, number: int) -> None:
    """A signal for one thread of another process: tgkill(2), which Python does not have."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_TGKILL, pid, thread, number) != 0:
        raise IpbpError("inferior-gone", f"thread {thread} of process {pid} is gone", "Try again.")


def blocked_signals(pid: int, thread: int) -> int:
    """The thread's signal mask, bit 0 for signal 1 (proc_pid_status(5))."""
    return int(status_field(pid, thread, "SigBlk"), 16)


def status_field(pid: int, thread: int, name: str) -> str:
    """One line of proc_pid_status(5), without its name."""
    return procfs.status(pid, thread)[name]


def _listed(pid: int) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except OSError as error:
        raise IpbpError("inferior-gone", f"process {pid} is gone", "Start it again.") from error


def _where(pid: int, thread: int) -> Optional[procfs.SystemCall]:
    try:
        return procfs.system_call(pid, thread)
    except IpbpError as error:
        if error.code == "inferior-gone":
            return None
        raise


def _one(pid: int) -> int:
    # A live thread; mostly the first one is.
    return pid if is_alive(pid, pid) else live_threads(pid)[0]
