"""What the kernel tells about a process of another machine: files that gdb gets from there (`remote get`; gdb manual,
"File Transfer", "Host I/O Packets").

/proc of that machine says which mappings the process has, and what it is (proc(5)): the same as `procfs` says of one
of this machine. The files that are mapped are found here where they are: below `set sysroot`, as gdb's own files, at
the same path; else they are copied. Each must begin as memory says.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterator, Optional, Sequence

import gdb

from gdb_ipbp.settings import quoted
from ipbp.errors import IpbpError
from ipbp.host import procfs
from ipbp.host.journal import process_name
from ipbp.host.private import private_folder
from ipbp.protocol import Region

_AT_ENTRY = 9  # getauxval(3)
_PAGE = 4096
_MTIME = 56  # offset in struct stat of the protocol, all of it big-endian (gdb manual, "struct stat")


class RemoteKernel:
    """One process there. `name`: what tells it from every other one, as `journal.identity` does here."""

    def __init__(self, pid: int, auxiliary_vector: bytes) -> None:
        self._pid = pid
        self._entry = _entry(auxiliary_vector)
        self._local: dict[tuple[str, int], str] = {}  # path there and where it is mapped -> path here
        boot, stat = _read("/proc/sys/kernel/random/boot_id"), _read(f"/proc/{pid}/stat")
        self.name = ""
        if boot and stat:
            start = int(stat.decode(errors="replace").rpartition(")")[2].split()[19])  # proc_pid_stat(5), field 22
            self.name = process_name(boot.decode().strip(), pid, start, auxiliary_vector)

    def regions(self) -> list[Region]:
        """All mappings, with the paths that their files have here."""
        content = _read(f"/proc/{self._pid}/maps")
        if not content:
            raise IpbpError("inferior-gone", f"process {self._pid} is gone", "Start it again.")
        return list(self._with_paths_here(procfs.parse_maps(content.decode(errors="surrogateescape"))))

    def program(self, regions: Sequence[Region]) -> str:
        """The path here of the program itself, which is mapped where its auxiliary vector says."""
        return next((row.path for row in regions if row.start <= self._entry < row.end), "")

    def filters_calls(self, thread: int) -> bool:
        """Whether a seccomp filter looks at the thread's system calls (proc_pid_status(5))."""
        content = _read(f"/proc/{self._pid}/task/{thread}/status") or b""
        return re.search(rb"^Seccomp:\s*2", content, re.MULTILINE) is not None

    def _with_paths_here(self, regions: Sequence[Region]) -> Iterator[Region]:
        code = {(row.path, row.inode) for row in regions if "x" in row.protection and row.path.startswith("/")}
        head = 0  # where the file was mapped that this region is of
        for region in regions:
            if (region.path, region.inode) not in code:
                yield region
                continue
            head = region.start if region.offset == 0 else head
            key = (region.path, head)
            if key not in self._local:
                self._local[key] = self._find(region.path, head)
            yield replace(region, path=self._local[key])

    def _find(self, path: str, start: int) -> str:
        try:
            head = bytes(gdb.selected_inferior().read_memory(start, _PAGE))
        except gdb.MemoryError:
            return path
        path = path[: -len(" (deleted)")] if path.endswith(" (deleted)") else path
        for candidate in _candidates(path):
            if _starts_with(candidate, head):
                return candidate
        for there in (f"/proc/{self._pid}/root{path}", f"/proc/{self._pid}/exe"):
            copy = _copied(there, path, head)
            if copy:
                return copy
        return path


def kernel_of(pid: int) -> Optional[RemoteKernel]:
    """None where the stub gives no files, or those of a machine that does not know this process."""
    content = _read(f"/proc/{pid}/auxv")
    if not content or content != auxiliary_vector():
        return None
    kernel = RemoteKernel(pid, content)
    return kernel if kernel.name else None


def auxiliary_vector() -> bytes:
    """As the stub gives it, b"" where it does not (gdb manual, "qXfer auxiliary vector read"); `info auxv` would read
    the strings as well. The program is stopped."""
    said = gdb.selected_inferior().connection.send_packet("qXfer:auxv:read::0,fff") or b""
    return _plain(said[1:]) if said[:1] == b"l" else b""


def entry_of_program() -> int:
    """AT_ENTRY: where the program begins. A static program of a bare machine has none: 0."""
    return _entry(auxiliary_vector())


def _entry(vector: bytes) -> int:
    return int(dict(struct.iter_unpack("<QQ", vector[: len(vector) & -16])).get(_AT_ENTRY, 0))


def _candidates(path: str) -> Iterator[str]:
    """Where a file of that machine may be on this one."""
    sysroot = gdb.parameter("sysroot")
    if sysroot and not sysroot.startswith("target:"):
        yield sysroot.rstrip("/") + path
    for objfile in gdb.objfiles():
        name = _name_of(objfile)
        if os.path.basename(name) == os.path.basename(path) and name.startswith("/"):
            yield name
    yield path


def _name_of(objfile: gdb.Objfile) -> str:
    try:
        return str(objfile.filename)
    except UnicodeDecodeError:
        return ""


def _starts_with(path: str, head: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(head)).ljust(len(head), b"\0") == head
    except OSError:  # not here
        return False


def _copied(there: str, path: str, head: bytes) -> str:
    """A copy of the file, which is kept; "" when there is none or another file is there now."""
    folder = _cache()
    name = folder / f"{hashlib.sha256(head).hexdigest()[:16]}-{os.path.basename(path)}"
    if _starts_with(str(name), head):
        return str(name)
    fresh = folder / f"{name.name}.{os.getpid()}"
    if not _get(there, str(fresh)):
        return ""
    modified = _modified(there)
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


def _read(path: str) -> Optional[bytes]:
    """All of a small file of that machine; None when it has none such, or the stub gives no files."""
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy")
        if not _get(path, copy):
            return None
        with open(copy, "rb") as file:
            return file.read()


def _get(path: str, copy: str) -> bool:
    try:
        gdb.execute(f"remote get {quoted(path)} {quoted(copy)}", to_string=True)
    except gdb.error as error:
        if "Remote I/O error" in str(error):
            return False
        fact = f"the stub does not answer: {error}"
        raise IpbpError("inferior-gone", fact, "Look whether it still runs, then try again.") from error
    return True


def _modified(path: str) -> int:
    """When the file was modified, in seconds; 1 where that is not known: then all sources are newer. To be asked after
    `_get`, by which gdb has chosen the stub's own file system."""
    send: Callable[[bytes], Optional[bytes]] = gdb.selected_inferior().connection.send_packet
    opened = send(b"vFile:open:" + os.fsencode(path).hex().encode() + b",0,0") or b""
    number = re.match(rb"F([0-9a-f]+)$", opened)
    if number is None:
        return 1
    said = send(b"vFile:fstat:" + number[1]) or b""
    send(b"vFile:close:" + number[1])
    content = _plain(said.partition(b";")[2])
    return int.from_bytes(content[_MTIME : _MTIME + 4], "big") or 1


def _plain(content: bytes) -> bytes:
    """Without the escapes of the protocol (gdb manual, "Binary Data")."""
    return re.sub(rb"\}(.)", lambda found: bytes([found[1][0] ^ 0x20]), content, flags=re.DOTALL)
