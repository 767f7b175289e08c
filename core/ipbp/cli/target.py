"""The process that the user named by its number: may a debugger attach to it, and is it left as it was?

Everything is asked of /proc before a debugger is started, since debuggers answer these cases with a page of text, or
(lldb-server with a process that has just ended) by crashing.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from ipbp.errors import IpbpError

_SERVER_GRACE = 2.0  # seconds
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")


def check_attachable(pid: int) -> None:
    """Returns when a debugger may attach. Errors: `process-missing`, `process-ended`, `process-main-thread-ended`,
    `process-traced`, `process-permission`."""
    state, tracer = status_field(pid, "State")[:1], int(status_field(pid, "TracerPid"))
    if state in ("Z", "X"):
        raise _ended(pid)
    if tracer:
        name = _name_of(tracer)
        raise IpbpError(
            "process-traced",
            f"process {pid} is being debugged already, by {name} (process {tracer})",
            "Type `hotpatch` in that debugger, or detach it first.",
        )
    try:  # The kernel asks the same question here as for attaching (ptrace(2), "Ptrace access mode checking").
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    except PermissionError as error:
        raise IpbpError("process-permission", f"you may not debug process {pid}", _permission_advice()) from error


def status_field(pid: int, field: str) -> str:
    """One field of /proc/PID/status (proc_pid_status(5)). Errors: `process-missing`."""
    try:
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise IpbpError(
            "process-missing", f"there is no process {pid}", "List yours with `ps -u $USER`, or use `pgrep NAME`."
        ) from error
    return next((row.partition(":")[2].strip() for row in rows if row.startswith(field + ":")), "")


def has_ended(pid: int) -> bool:
    """Also one that nobody has waited for yet."""
    try:
        return status_field(pid, "State")[:1] in ("Z", "X")
    except IpbpError:
        return True


def is_stopped(pid: int) -> bool:
    """Stopped by a signal (job control), not by a debugger."""
    return status_field(pid, "State").startswith("T")


def settle(pid: int, was_stopped: bool) -> None:
    """Put the process's job control state back, after a debugger has let go of it. Nothing when it has ended.

    A debugger that was killed leaves a stop of its own behind, and lldb's server may outlive lldb; a clean detach
    from a stopped process may resume it.
    """
    try:
        _end_tracer(pid)
        now_stopped = is_stopped(pid)
        if now_stopped != was_stopped:
            os.kill(pid, signal.SIGSTOP if was_stopped else signal.SIGCONT)
    except (IpbpError, ProcessLookupError):
        return


def _end_tracer(pid: int) -> None:
    """Our debugger is gone; a tracer that is still there is its server. It gets a moment, then it is killed: the
    kernel lets the process go when its tracer ends (ptrace(2))."""
    deadline = time.monotonic() + _SERVER_GRACE
    while tracer := int(status_field(pid, "TracerPid")):
        if time.monotonic() > deadline:
            os.kill(tracer, signal.SIGKILL)
        time.sleep(0.01)


def _ended(pid: int) -> IpbpError:
    try:
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        threads = 0
    if threads > 1:
        return IpbpError(
            "process-main-thread-ended",
            f"the main thread of process {pid} has ended, and debuggers do not attach to such a process",
            "Start the program from the debugger, then `hotpatch` works.",
        )
    return IpbpError("process-ended", f"process {pid} has ended", "Start it again.")


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "another process"


def _permission_advice() -> str:
    scope = _YAMA.read_text().strip() if _YAMA.exists() else "0"
    if scope == "1":
        return "Yama allows a debugger its own children only: `sudo sysctl kernel.yama.ptrace_scope=0`, or use sudo."
    if scope == "2":
        return "Yama allows administrators only (kernel.yama.ptrace_scope=2): run ipbp with sudo."
    if scope == "3":
        return "Yama forbids debugging until the next boot (kernel.yama.ptrace_scope=3)."
    return "Run ipbp as the user whose process it is, or as root; in a container, add the capability SYS_PTRACE."
