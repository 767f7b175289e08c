"""What the kernel tells about a process of another machine, through the files that a debugger gets from there.

/proc of that machine says which mappings the process has, and what it is (proc(5)): the same as `procfs` says of one
of this machine. The files that are mapped are found here where they are: where the debugger has them or would look for
them, or at the same path; else they are copied. Each must begin as memory says.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Container, Iterable, Iterator, Optional, Sequence

from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.host.journal import process_name
from ipbp.host.kernel_words import kept_words_there
from ipbp.host.mapped_head import is_head_of
from ipbp.host.private import private_folder
from ipbp.protocol import Region

_AT_ENTRY = 9  # getauxval(3)
_PAGE = 4096
_START, _STACK_START = 22, 28  # fields of proc_pid_stat(5): in ticks after the boot; where argc is
_AT_NULL = bytes(16)  # ends an auxiliary vector
_LONGEST = 64 * 16  # bytes of one; the kernel has room for some twenty entries (AT_VECTOR_SIZE)


@dataclass(frozen=True)
class Link:
    """What a debugger can do there. `content`: all of a small text file, None where there is none; `contents`: of many,
    while the process is stopped. `get`: copies a file to a path of this machine; whether that was done. `read`: memory
    of the process, None when there is none. `places`: where this machine may have a file of that one, beside its own
    path. `modified`: when a file that `get` has just got was modified, in seconds."""

    content: Callable[[str], Optional[bytes]]
    contents: Callable[[Iterable[str]], Iterator[Optional[bytes]]]
    get: Callable[[str, str], bool]
    read: Callable[[int, int], Optional[bytes]]
    places: Callable[[str], Iterable[str]]
    modified: Callable[[str], int]


@dataclass
class RemoteKernel:
    """One process there. `name`: what tells it from every other one, as `journal.identity` does here. `entry`: where
    the program begins."""

    link: Link
    pid: int
    name: str
    entry: int
    _here: dict[tuple[str, int], str] = field(default_factory=dict)  # path there, where it is mapped -> path here

    def regions(self) -> list[Region]:
        """All mappings, with the paths that their files have here."""
        content = self.link.content(f"/proc/{self.pid}/maps")
        if not content:
            raise IpbpError("inferior-gone", f"process {self.pid} is gone", "Start it again.")
        return list(self._with_paths_here(procfs.parse_maps(content.decode(errors="surrogateescape"))))

    def program(self, regions: Sequence[Region]) -> str:
        """The path here of the program itself."""
        return next((row.path for row in regions if row.start <= self.entry < row.end), "")

    def filters_calls(self, thread: int) -> bool:
        """Whether a seccomp filter looks at the thread's system calls (proc_pid_status(5))."""
        return re.search(rb"^Seccomp:\s*2", self._status(thread), re.MULTILINE) is not None

    def blocked_signals(self, thread: int) -> Optional[int]:
        """As `Inferior.blocked_signals`."""
        found = re.search(rb"^SigBlk:\s*([0-9a-f]+)", self._status(thread), re.MULTILINE)
        return int(found[1], 16) if found else None

    def _status(self, thread: int) -> bytes:
        return self.link.content(f"/proc/{self.pid}/task/{thread}/status") or b""

    def system_call(self, thread: int) -> Optional[procfs.SystemCall]:
        """Where a stopped thread is, None when that is not told."""
        content = self.link.content(f"/proc/{self.pid}/task/{thread}/syscall")
        return procfs.parse_system_call(content.decode("ascii")) if content else None

    def kept_words(self, seconds: float) -> Optional[list[int]]:
        """As `Inferior.kept_words`."""
        return kept_words_there(self.link.contents, self.pid, self.regions(), seconds)

    def has_matrix_registers(self) -> bool:
        """Whether that machine's processor has AMX (proc_cpuinfo(5))."""
        return b" amx_tile " in (self.link.content("/proc/cpuinfo") or b"")

    def _with_paths_here(self, regions: Sequence[Region]) -> Iterator[Region]:
        code = {(row.path, row.inode) for row in regions if "x" in row.protection and row.path.startswith("/")}
        head = 0  # where the file was mapped that this region is of
        for region in regions:
            if (region.path, region.inode) not in code:
                yield region
                continue
            head = region.start if region.offset == 0 else head
            key = (region.path, head)
            if key not in self._here:
                self._here[key] = self._find(region.path, head)
            yield replace(region, path=self._here[key])

    def _find(self, path: str, start: int) -> str:
        head = self.link.read(start, _PAGE)
        if head is None:
            return path
        path = path[: -len(" (deleted)")] if path.endswith(" (deleted)") else path
        for candidate in (*self.link.places(path), path):
            if _starts_with(candidate, head):
                return candidate
        for there in (f"/proc/{self.pid}/root{path}", f"/proc/{self.pid}/exe"):
            copy = _copied(self.link, there, path, head)
            if copy:
                return copy
        return path


def kernel_of(link: Link, pid: int, vector: bytes) -> Optional[RemoteKernel]:
    """None where the debugger gets no files. `vector`: the auxiliary vector of the process, as that machine's kernel
    tells it."""
    boot, stat = link.content("/proc/sys/kernel/random/boot_id"), link.content(f"/proc/{pid}/stat")
    if not (vector and boot and stat):
        return None
    start = _stat_field(stat, _START)
    return RemoteKernel(link, pid, process_name(boot.decode().strip(), pid, start, vector), entry_of(vector))


def vector_on_stack(link: Link, pid: int, digests: Container[bytes]) -> bytes:
    """The auxiliary vector whose MD5 is one of these, from the program's memory; b"" where there is none (any more)."""
    stat, maps = link.content(f"/proc/{pid}/stat"), link.content(f"/proc/{pid}/maps")
    if not stat or not maps:
        return b""
    start = _stat_field(stat, _STACK_START)
    stack = next((r for r in procfs.parse_maps(os.fsdecode(maps)) if r.start <= start < r.end), None)
    content = link.read(start, stack.end - start) if stack is not None else None
    return _vector_in(content or b"", digests)


def _vector_in(stack: bytes, digests: Container[bytes]) -> bytes:
    # argc, argv, envp come first, each a list of pointers; but programs change theirs, and where these end does not
    # tell where the vector begins.
    end = stack.find(_AT_NULL)
    while end >= 0:
        for begin in range(end, max(end - _LONGEST, -1), -16) if end % 8 == 0 else ():
            if hashlib.md5(stack[begin : end + 16], usedforsecurity=False).digest() in digests:
                return stack[begin : end + 16]
        end = stack.find(_AT_NULL, end + 1)
    return b""


def _stat_field(stat: bytes, number: int) -> int:
    # The second one, a name, may hold anything; the first one here is the third.
    return int(stat.decode(errors="replace").rpartition(")")[2].split()[number - 3])


def entry_of(vector: bytes) -> int:
    """AT_ENTRY of an auxiliary vector: where the program begins. A static program of a bare machine has none: 0."""
    return int(dict(struct.iter_unpack("<QQ", vector[: len(vector) & -16])).get(_AT_ENTRY, 0))


def _starts_with(path: str, head: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return is_head_of(file.read(len(head)), head)
    except OSError:  # not here
        return False


def _copied(link: Link, there: str, path: str, head: bytes) -> str:
    """A copy of the file, which is kept; "" when there is none or another file is there now."""
    folder = _cache()
    name = folder / f"{hashlib.sha256(head).hexdigest()[:16]}-{os.path.basename(path)}"
    if _starts_with(str(name), head):
        return str(name)
    fresh = folder / f"{name.name}.{os.getpid()}"
    if not link.get(there, str(fresh)):
        return ""
    modified = link.modified(there)
    os.utime(fresh, (modified, modified))
    if not _starts_with(str(fresh), head):
        fresh.unlink()
        return ""
    os.replace(fresh, name)
    return str(name)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~"), ".cache")) / "ipbp"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if private_folder(folder) and private_folder(folder / "remote"):
            return folder / "remote"
    except OSError as error:
        fact = f"{folder}: the folder cannot be made: {error.strerror}"
        raise IpbpError("folder-unwritable", fact, "Set XDG_CACHE_HOME to a folder that you may write to.") from error
    raise IpbpError("folder-untrusted", f"{folder} is not a folder that only you can write to", "Remove it.")


def content_by(get: Callable[[str, str], bool]) -> Callable[[str], Optional[bytes]]:
    """All of a small file of that machine, where `get` copies any file; None when it has none such."""

    def content(path: str) -> Optional[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, "copy")
            if not get(path, copy):
                return None
            with open(copy, "rb") as file:
                return file.read()

    return content
