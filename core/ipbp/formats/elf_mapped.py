"""The files that a process has mapped, opened as the very files that it runs.

A path says little: the build may have replaced the file since, deleted it, or the process may live in another mount
namespace. The kernel still has the right one. Ways to it, surest first: /proc/PID/exe (proc_pid_exe(5); through any
living thread, because that of an exited main thread is gone), the path when it still leads to the mapped inode,
/proc/PID/map_files (needs CAP_CHECKPOINT_RESTORE), the path inside the process's own root; then a path whose file
has another inode number (overlay file systems show two) but the head that is mapped; last, what is in memory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ipbp.errors import IpbpError
from ipbp.formats.elf_linked import PT_LOAD, LinkedFile, map_file, read_linked
from ipbp.graph.image import MemoryReader
from ipbp.host.mapped_head import is_head_of
from ipbp.kept import file_state
from ipbp.protocol import Region

_DELETED = " (deleted)"
_PAGE = 4096
VDSO = "[vdso]"


@dataclass(frozen=True, slots=True)
class MappedFile:
    """One ELF file as it is mapped: `regions` ascending, the first one shows the file's header (offset 0)."""

    path: str
    inode: int
    regions: tuple[Region, ...]

    @property
    def start(self) -> int:
        return self.regions[0].start

    @property
    def end(self) -> int:
        return self.regions[-1].end

    def holds(self, address: int) -> bool:
        return any(region.start <= address < region.end for region in self.regions)


def mapped_files(regions: Sequence[Region], read: MemoryReader) -> list[MappedFile]:
    """Files with an executable mapping, and the vdso, by address. A file mapped twice (dlmopen) makes two, also when
    one lies right behind the other: how far each reaches says its header in memory."""
    named = [region for region in regions if region.path.startswith("/") or region.path == VDSO]
    reach = _reaches([region for region in named if region.offset == 0], read)
    groups: list[list[Region]] = []
    for region in named:
        group = groups[-1] if groups else []
        same = bool(group) and (group[-1].path, group[-1].inode) == (region.path, region.inode)
        # lld gives segments that share a page of the file a page each, so more than one region may show offset 0.
        if same and (region.offset > group[0].offset or region.start < reach.get(group[0].start, 0)):
            group.append(region)
        else:
            groups.append([region])
    executable = [group for group in groups if any("x" in region.protection for region in group)]
    return [
        MappedFile(group[0].path.removesuffix(_DELETED), group[0].inode, tuple(group))
        for group in executable
        if group[0].offset == 0
    ]


def _reaches(heads: Sequence[Region], read: MemoryReader) -> dict[int, int]:
    """Start of each region that shows an ELF header -> end of the last segment, in load addresses."""
    found = {}
    ranges = [(head.start, min(_PAGE, head.end - head.start)) for head in heads]
    for (start, _size), content in zip(ranges, read(ranges), strict=True):
        spans = _load_spans(content) if content and content[:4] == b"\x7fELF" else []
        if spans:
            found[start] = start + max(end for _, end in spans) - min(first for first, _ in spans) // _PAGE * _PAGE
    return found


def _load_spans(head: bytes) -> list[tuple[int, int]]:
    """Link addresses [start, end) of the segments, as far as the first page tells (gABI, "Program Header")."""
    at, count = int.from_bytes(head[32:40], "little"), int.from_bytes(head[56:58], "little")
    rows = [
        struct.unpack_from("<IIQQQQQQ", head, place)
        for place in range(at, at + 56 * count, 56)
        if place + 56 <= len(head)
    ]
    return [(row[3], row[3] + row[6]) for row in rows if row[0] == PT_LOAD]


def open_mapped(pid: int, file: MappedFile, read: MemoryReader) -> tuple[LinkedFile, str, int]:
    """The headers of the file, a path that opens it ("" when only memory has it), and what its dynamic section was
    relocated by (0 for a file). Errors: `image-unreadable`, `image-malformed`, `image-wrong-architecture`.
    """
    for path in _by_inode(pid, file):
        return _linked_once(path, file.path, file_state(os.stat(path))), path, 0
    head = read([(file.start, min(_PAGE, file.regions[0].end - file.start))])[0]
    if head is None:
        raise _unreadable(file, "its memory cannot be read either")
    for path in (file.path, f"/proc/{pid}/root{file.path}"):
        if _starts_with(path, head):
            return read_linked(map_file(path), file.path), path, 0
    content = _from_memory(file, head, read)
    linked = read_linked(content, file.path)
    return linked, "", bias_of(linked, file)


@lru_cache(maxsize=64)
def _linked_once(path: str, name: str, state: tuple[int, ...]) -> LinkedFile:
    """`state`: what tells the file from another one at this path."""
    return read_linked(map_file(path), name)


def bias_of(linked: LinkedFile, file: MappedFile) -> int:
    """Load address minus link address: the header's page is at the start of the segment with offset 0."""
    if not linked.is_pie:
        return 0
    first = min(linked.loads(), key=lambda row: row.address)
    return file.start - (first.address - first.offset) // _PAGE * _PAGE


def _by_inode(pid: int, file: MappedFile) -> Iterator[str]:
    if file.inode == 0 or pid == 0:
        return
    places = [f"/proc/{pid}/exe", *(f"/proc/{pid}/task/{thread}/exe" for thread in _threads(pid)), file.path]
    region = file.regions[0]
    places.append(f"/proc/{pid}/map_files/{region.start:x}-{region.end:x}")
    places.append(f"/proc/{pid}/root{file.path}")
    for path in places:
        if _inode(path) == file.inode and _opens(path):
            yield path


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:  # not a process of this machine, or gone: the other ways decide
        return []


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:  # no such way to the file
        return -1


def _opens(path: str) -> bool:
    return os.access(path, os.R_OK)


def _starts_with(path: str, head: bytes) -> bool:
    try:
        with Path(path).open("rb") as stream:
            return is_head_of(stream.read(len(head)), head)
    except OSError:  # no such way to the file
        return False


def _from_memory(file: MappedFile, head: bytes, read: MemoryReader) -> bytes:
    """A picture of the file made from its segments in memory, at their offsets; section headers only where they were
    loaded too (in the vdso they are)."""
    if file.path == VDSO:
        whole = read([(file.start, file.end - file.start)])[0]
        if whole is None:
            raise _unreadable(file, "its memory cannot be read")
        return whole
    # The section headers are not loaded: their offset and count are cleared in the picture (e_shoff, e_shnum).
    picture = bytearray(head[:40] + bytes(8) + head[48:60] + bytes(4) + head[64:])
    linked = _headers(bytes(picture), file)
    bias = bias_of(linked, file)
    loads = linked.loads()
    parts = read([(bias + row.address, row.file_size) for row in loads])
    for row, part in zip(loads, parts, strict=True):
        if part is None:
            raise _unreadable(file, "its memory cannot be read")
        picture[row.offset : row.offset] = bytes(max(0, row.offset - len(picture)))
        picture[row.offset : row.offset + len(part)] = part
    picture[40:48], picture[60:64] = bytes(8), bytes(4)
    return bytes(picture)


def _headers(head: bytes, file: MappedFile) -> LinkedFile:
    # Judged on a sparse stand-in of the mapped size, for the header's page alone does not hold the segments.
    size = max(region.offset + region.end - region.start for region in file.regions)
    return read_linked(head.ljust(size, b"\0"), file.path)


def _unreadable(file: MappedFile, why: str) -> IpbpError:
    return IpbpError(
        "image-unreadable",
        f"the file that runs as {file.path} can no longer be opened, and {why}",
        "Restart the program once from the file that is there now.",
    )
