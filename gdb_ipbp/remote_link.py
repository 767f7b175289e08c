"""How gdb gets files of the machine that a stub runs on (`remote get`; gdb manual, "File Transfer" and "Host I/O
Packets"), and what else it knows of the process there."""

from __future__ import annotations

import os
import re
from typing import Callable, Iterator, Optional

import gdb

from gdb_ipbp.settings import quoted
from ipbp.errors import IpbpError
from ipbp.host.remote_kernel import Link, RemoteKernel, content_by, entry_of, kernel_of

_MTIME = 56  # offset in struct stat of the protocol, all of it big-endian (gdb manual, "struct stat")


def kernel_behind_stub(pid: int) -> Optional[RemoteKernel]:
    """What the kernel there tells of the selected inferior; None where the stub gives no files."""
    link = Link(content_by(_get), _get, _memory, _places, _modified)
    vector = link.content(f"/proc/{pid}/auxv") or b""
    return kernel_of(link, pid, vector) if vector == auxiliary_vector() else None


def auxiliary_vector() -> bytes:
    """As the stub gives it, b"" where it does not (gdb manual, "qXfer auxiliary vector read"); `info auxv` would read
    the strings as well. The program is stopped."""
    said = gdb.selected_inferior().connection.send_packet("qXfer:auxv:read::0,fff") or b""
    return _plain(said[1:]) if said[:1] == b"l" else b""


def entry_of_program() -> int:
    """AT_ENTRY: where the program begins. A static program of a bare machine has none: 0."""
    return entry_of(auxiliary_vector())


def _places(path: str) -> Iterator[str]:
    """Where a file of that machine may be on this one."""
    sysroot = gdb.parameter("sysroot")
    if sysroot and not sysroot.startswith("target:"):
        yield sysroot.rstrip("/") + path
    for objfile in gdb.objfiles():
        name = _name_of(objfile)
        if os.path.basename(name) == os.path.basename(path) and name.startswith("/"):
            yield name


def _name_of(objfile: gdb.Objfile) -> str:
    try:
        return str(objfile.filename)
    except UnicodeDecodeError:
        return ""


def _memory(address: int, size: int) -> Optional[bytes]:
    try:
        return bytes(gdb.selected_inferior().read_memory(address, size))
    except gdb.MemoryError:
        return None


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
