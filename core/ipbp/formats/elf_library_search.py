"""Libraries that are installed and not loaded: which of them defines a name.

Looked for where the program's own loader would find them (ld.so(8)): the folders that the program names (DT_RUNPATH,
DT_RPATH) and ldconfig's cache. A file is opened only when the name's letters are in it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ipbp.errors import IpbpError
from ipbp.formats.elf_dynamic import DT_STRSZ, DT_STRTAB, dynamic_entries, read_dynamic
from ipbp.formats.elf_linked import LinkedFile, read_linked

_DT_RPATH, _DT_RUNPATH = 15, 29
_CACHE = "etc/ld.so.cache"
_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER, _ENTRY = 48, 24  # sysdeps/generic/dl-cache.h: struct cache_file_new, struct file_entry_new
_X86_64 = 0x0303  # FLAG_X8664_LIB64 | FLAG_ELF_LIBC6


def libraries_with(name: str, program: LinkedFile, root: Path, most: int = 3) -> list[str]:
    """Names by which the loader finds a library that defines `name` for others, the smallest libraries first; at most
    `most` of them. `root`: of the process's own view of the files."""
    wanted = b"\0" + name.encode() + b"\0"
    files = {path: soname for soname, path in (*_named_folders(program, root), *_cached(root))}
    found: list[str] = []
    for path in sorted(files, key=_size):
        if _contains(path, wanted) and _defines(path, name) and files[path] not in found:
            found.append(files[path])
            if len(found) == most:
                break
    return found


def _named_folders(program: LinkedFile, root: Path) -> Iterator[tuple[str, Path]]:
    entries = dict(dynamic_entries(program))
    text = entries.get(_DT_RUNPATH, entries.get(_DT_RPATH))
    strings = program.at(entries.get(DT_STRTAB, 0), entries.get(DT_STRSZ, 0))
    if text is None or strings is None:
        return
    folders = bytes(strings[text:]).partition(b"\0")[0].decode("utf-8", "surrogateescape")
    origin = str(Path(program.path).parent)
    for folder in folders.split(":"):
        expanded = folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin)
        if expanded.startswith("/"):
            yield from ((path.name, path) for path in sorted((root / expanded[1:]).glob("*.so*")))


def _cached(root: Path) -> Iterator[tuple[str, Path]]:
    try:
        content = (root / _CACHE).read_bytes()
    except OSError:  # no cache: nothing to offer from there
        return
    if not content.startswith(_MAGIC):
        return
    for row in range(_number(content, len(_MAGIC))):
        at = _HEADER + _ENTRY * row
        if _number(content, at) & 0xFFFF == _X86_64:
            soname, path = (_text(content, _number(content, at + field)) for field in (4, 8))
            yield soname, root / path.lstrip("/")


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4], "little")


def _text(content: bytes, at: int) -> str:
    return content[at : content.find(b"\0", at)].decode("utf-8", "surrogateescape")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a stale row of the cache
        return 0


def _contains(path: Path, wanted: bytes) -> bool:
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(wanted) >= 0
    except (OSError, ValueError):  # gone, or empty
        return False


def _defines(path: Path, name: str) -> bool:
    try:
        return read_dynamic(read_linked(path.read_bytes(), str(path))).definition(name) is not None
    except (OSError, IpbpError):  # a linker script, or a damaged file: nothing that could be loaded
        return False
