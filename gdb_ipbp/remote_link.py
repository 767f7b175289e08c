"""How gdb gets files of the machine that a stub runs on (`remote get`; gdb manual, "File Transfer" and "Host I/O
Packets"), and what else it knows of the process there."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from itertools import islice
from typing import Callable, Iterable, Iterator, Optional

import gdb

from gdb_ipbp.settings import quoted
from ipbp.errors import IpbpError
from ipbp.host.remote_kernel import Link, RemoteKernel, content_by, entry_of, kernel_of

_Send = Callable[[bytes], Optional[bytes]]
_CHUNK = 1 << 12  # bytes
_MTIME = 56  # offset in struct stat of the protocol, all of it big-endian (gdb manual, "struct stat")


def kernel_behind_stub(pid: int) -> Optional[RemoteKernel]:
    """What the kernel there tells of the selected inferior; None where the stub gives no files."""
    link = Link(_content, _contents, _get, _memory, _places, _modified)
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


_content = content_by(_get)


def _contents(paths: Iterable[str]) -> Iterator[Optional[bytes]]:
    # gdb takes milliseconds for each file. With the first one it has chosen the stub's own file system.
    send, rest = _sender(), iter(paths)
    yield from map(_content, islice(rest, 1))
    for path in rest:
        with _opened(send, path) as number:
            yield _all_of(send, number) if number is not None else None


def _all_of(send: _Send, number: bytes) -> Optional[bytes]:
    content = b""
    while True:
        said = send(b"vFile:pread:%s,%x,%x" % (number, _CHUNK, len(content))) or b""
        head, _, part = said.partition(b";")
        part = _plain(part)
        if head != b"F%x" % len(part):
            return None
        if not part:
            return content
        content += part


def _modified(path: str) -> int:
    """When the file was modified, in seconds; 1 where that is not known: then all sources are newer. To be asked after
    `_get`, by which gdb has chosen the stub's own file system."""
    send = _sender()
    with _opened(send, path) as number:
        said = (send(b"vFile:fstat:" + number) or b"") if number is not None else b""
    content = _plain(said.partition(b";")[2])
    return int.from_bytes(content[_MTIME : _MTIME + 4], "big") or 1


def _sender() -> _Send:
    send: _Send = gdb.selected_inferior().connection.send_packet
    return send


@contextmanager
def _opened(send: _Send, path: str) -> Iterator[Optional[bytes]]:
    # Its number, in hex; None for no file. To be read (flags 0), no mode.
    opened = re.fullmatch(rb"F([0-9a-f]+)", send(b"vFile:open:%s,0,0" % os.fsencode(path).hex().encode()) or b"")
    try:
        yield opened[1] if opened else None
    finally:
        if opened:
            send(b"vFile:close:" + opened[1])


def _plain(content: bytes) -> bytes:
    """Without the escapes of the protocol (gdb manual, "Binary Data")."""
    return re.sub(rb"\}(.)", lambda found: bytes([found[1][0] ^ 0x20]), content, flags=re.DOTALL)
