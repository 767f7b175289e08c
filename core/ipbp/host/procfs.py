"""What the kernel tells about a process on this machine: mappings, memory, system calls, identity (proc(5)).

Reading and writing through `/proc` is many times faster than through a debugger and writes into mappings without
write permission, too. Everything goes through a thread that is alive: once the main thread has exited, the files
of the process as a whole are empty or refuse, those of its other threads still work.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Callable, Optional, Sequence, TypeVar

from ipbp.errors import IpbpError
from ipbp.protocol import Region

T = TypeVar("T")


@dataclass(frozen=True)
class SystemCall:
    """Where a stopped thread is. `number` is None when it was not stopped in a system call; then there are no
    `arguments` either."""

    number: Optional[int]
    arguments: tuple[int, ...]
    stack_pointer: int
    pc: int


def regions(pid: int) -> list[Region]:
    """The mappings of a process in address order."""
    # That of a main thread that has ended is empty.
    return parse_maps(_read_text(pid, f"/proc/{pid}/task/{pid}/maps") or _read_text(pid, f"{_task(pid)}/maps"))


def parse_maps(text: str) -> list[Region]:
    """The lines of a maps file (proc_pid_maps(5)). The path is the rest of the line, spaces and all."""
    global _rows  # few lines change from one stop to the next
    known = _rows
    _rows = {line: known.get(line) or _region(line) for line in text.splitlines()}
    return list(_rows.values())


_rows: dict[str, Region] = {}
"""What the lines of the newest maps file say."""


def _region(line: str) -> Region:
    span, permissions, offset, _device, inode, *path = line.split(maxsplit=5)
    start, end = span.split("-")
    return Region(
        start=int(start, 16),
        end=int(end, 16),
        protection=permissions[:3].replace("-", ""),
        offset=int(offset, 16),
        path=path[0] if path else "",
        inode=int(inode),
    )


def read_memory(pid: int, address: int, size: int) -> bytes:
    """All `size` bytes at `address`, or `inferior-memory`. A debugger's traps are not hidden."""
    try:
        return _with_memory(pid, os.O_RDONLY, lambda file: _read_all(file, address, size))
    except (OSError, OverflowError) as error:
        raise _memory_error(pid, error, "read", address, size) from error


def write_memory(pid: int, address: int, content: bytes) -> None:
    """All of `content` at `address`, whatever the protection there, or `inferior-memory`.

    A debugger does not notice: its caches and the shadows of its breakpoints are the caller's business.
    """
    write_places(pid, [(address, content)])


def write_places(pid: int, places: Sequence[tuple[int, bytes]]) -> None:
    """The same for each of these addresses and contents, one after the other."""

    if not places:
        return

    def act(file: int) -> None:
        for address, content in places:
            _write_all(file, address, content)

    try:
        _with_memory(pid, os.O_RDWR, act)
    except (OSError, OverflowError) as error:
        size = sum(len(content) for _, content in places)
        raise _memory_error(pid, error, "write", places[0][0], size) from error


def _with_memory(pid: int, mode: int, act: Callable[[int], T]) -> T:
    # The main thread's memory is tried before its state is looked at, which would take longer.
    first = f"/proc/{pid}/task/{pid}"
    try:
        return _act_on(f"{first}/mem", mode, act)
    except OSError:
        task = _task(pid)
        if task == first:
            raise
    return _act_on(f"{task}/mem", mode, act)


def _act_on(path: str, mode: int, act: Callable[[int], T]) -> T:
    file = os.open(path, mode | os.O_CLOEXEC)
    try:
        return act(file)
    finally:
        os.close(file)


def _read_all(file: int, address: int, size: int) -> bytes:
    content = b""
    while len(content) < size:  # the kernel may stop at any page
        more = os.pread(file, size - len(content), address + len(content))
        if not more:
            raise OSError(errno.EIO, "nothing there")
        content += more
    return content


def _write_all(file: int, address: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        count = os.pwrite(file, content[written:], address + written)
        if count == 0:
            raise OSError(errno.EIO, "nothing there")
        written += count


def system_call(pid: int, thread: int) -> Optional[SystemCall]:
    """Where a stopped thread is, or None when it runs (proc_pid_syscall(5))."""
    return parse_system_call(_read_record(pid, f"/proc/{pid}/task/{thread}/syscall"))


def parse_system_call(text: str) -> Optional[SystemCall]:
    """The content of that file."""
    words = text.split()
    if words == ["running"]:
        return None
    number = int(words[0])
    values = [int(word, 16) for word in words[1:]]
    if number < 0:
        return SystemCall(None, (), values[-2], values[-1])
    return SystemCall(number, tuple(values[:-2]), values[-2], values[-1])


def seccomp_mode(pid: int, thread: int) -> int:
    """0 none, 1 strict, 2 filter (proc_pid_status(5)); 0 on kernels without seccomp."""
    return int(status(pid, thread).get("Seccomp", "0"))


def signals_to_handle(pid: int, thread: int) -> int:
    """Pending signals that this thread will run a handler for; bit 0 is signal 1 (proc_pid_status(5))."""
    rows = status(pid, thread)
    mine, shared, blocked, caught = (int(rows[name], 16) for name in ("SigPnd", "ShdPnd", "SigBlk", "SigCgt"))
    return (mine | shared) & caught & ~blocked


def start_time(pid: int) -> int:
    """Clock ticks from boot to the start of the process: with its pid, what tells it from all others of this boot."""
    return int(_stat_fields(pid, f"/proc/{pid}/stat")[19])  # field 22; the first here is field 3


def processor_ticks(pid: int) -> int:
    """What all threads together have used of the processors, in clock ticks (sysconf(3), _SC_CLK_TCK)."""
    fields = _stat_fields(pid, f"/proc/{pid}/stat")
    return int(fields[11]) + int(fields[12])  # utime and stime, fields 14 and 15


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def auxiliary_vector(pid: int) -> bytes:
    """As the kernel gave it to the program at execve(2): with randomised addresses, one of a kind for each start."""
    try:
        with open(f"{_task(pid)}/auxv", "rb") as stream:
            return stream.read()
    except OSError as error:
        raise _process_error(pid, error) from error


def _task(pid: int) -> str:
    # The folder of a thread that still has its memory.
    leader = f"/proc/{pid}/task/{pid}"
    try:
        if _is_alive(pid, leader):
            return leader
        for name in os.listdir(f"/proc/{pid}/task"):
            if _is_alive(pid, f"/proc/{pid}/task/{name}"):
                return f"/proc/{pid}/task/{name}"
    except OSError as error:
        raise _process_error(pid, error) from error
    raise _gone(pid)


def _is_alive(pid: int, task: str) -> bool:
    return _stat_fields(pid, f"{task}/stat")[0] not in ("Z", "X")


def state(pid: int, thread: int) -> Optional[str]:
    """The letter of proc_pid_stat(5); None when there is no such thread (any more)."""
    try:
        return _stat_fields(pid, f"/proc/{pid}/task/{thread}/stat")[0]
    except IpbpError:
        return None


def _stat_fields(pid: int, path: str) -> list[str]:
    # From field 3 on: field 2, the name in parentheses, may contain anything (proc_pid_stat(5)).
    return _read_record(pid, path).rpartition(")")[2].split()


def _read_text(pid: int, path: str) -> str:
    parts: list[bytes] = []
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while not parts or parts[-1]:
                parts.append(os.read(file, 1 << 16))
        finally:
            os.close(file)
    except OSError as error:
        raise _process_error(pid, error) from error
    return b"".join(parts).decode("utf-8", "surrogateescape")


def _read_record(pid: int, path: str) -> str:
    """A file that the kernel writes in one piece (single_open() in fs/seq_file.c), and so one read gives all of."""
    # Without Python's file objects, which take longer than the kernel: there are dozens of these in a stop.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(file, 1 << 16).decode("utf-8", "surrogateescape")
        finally:
            os.close(file)
    except OSError as error:
        raise _process_error(pid, error) from error


def status(pid: int, thread: int) -> dict[str, str]:
    """The lines of proc_pid_status(5) by their names."""
    rows = (line.partition(":") for line in _read_record(pid, f"/proc/{pid}/task/{thread}/status").splitlines())
    return {name: value.strip() for name, _, value in rows}


def _gone(pid: int) -> IpbpError:
    return IpbpError("inferior-gone", f"process {pid} is gone", "Start it again.")


def _process_error(pid: int, error: OSError) -> IpbpError:
    if error.errno in (errno.ENOENT, errno.ESRCH):
        return _gone(pid)
    return IpbpError(
        "inferior-permission",
        f"the kernel does not let us look into process {pid}: {error.strerror}",
        "Run the debugger as the user that the process belongs to, or as root.",
    )


def _memory_error(pid: int, error: Optional[Exception], verb: str, address: int, size: int) -> IpbpError:
    if isinstance(error, OSError) and error.errno not in (errno.EIO, errno.EFAULT, errno.EINVAL):
        return _process_error(pid, error)
    return IpbpError(
        "inferior-memory",
        f"cannot {verb} {size} bytes at {address:#x} in process {pid}",
        "Try again; when it does not go away, report it: the memory is not mapped, or the kernel protects it.",
    )
