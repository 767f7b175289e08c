"""Where an image's symbols and debug information are, when they were taken out of it.

Distributions and build systems strip what they ship and keep the rest in a file beside it. Such a file is found as
gdb finds it (GDB manual, "Separate Debug Files"): by build id, then by the name in `.gnu_debuglink`, then among what
debuginfod's client has fetched before (debuginfod_find_debuginfo(3); the network is never asked). Another build's
debug file would put every variable in the wrong place, so only proof counts: the same build id, or, where one of the
two has none, the checksum of the link. Some distributions leave a small symbol table in the image itself, compressed
(GDB manual, "MiniDebugInfo").
"""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipbp.errors import IpbpError
from ipbp.formats.elf_file import SHT_SYMTAB
from ipbp.formats.elf_linked import LinkedFile, malformed, map_file, read_debug_parts

DEBUG_FOLDER = "/usr/lib/debug"
_LARGEST_SYMBOL_TABLE = 1 << 28  # bytes of an unpacked .gnu_debugdata: it holds nothing but names of functions


@dataclass(frozen=True, slots=True)
class DebugLink:
    """`.gnu_debuglink`: the base name of the debug file and the CRC-32 of its content."""

    name: str
    checksum: int


def has_symbols(file: LinkedFile) -> bool:
    return any(row.type == SHT_SYMTAB for row in file.sections)


def has_debug_information(file: LinkedFile) -> bool:
    return any(file.section(name) is not None for name in (".debug_info", ".zdebug_info"))


def separate_debug_file(file: LinkedFile, folders: Sequence[str] = (DEBUG_FOLDER,)) -> LinkedFile | None:
    """The file with what was stripped off `file`; its `path` opens it, its segments are not described. None when
    there is none that surely belongs to it, or nothing was stripped off. `folders`: the global ones, as of gdb's
    debug-file-directory and lldb's target.debug-file-search-paths."""
    if has_symbols(file) and has_debug_information(file):
        return None
    build_id, link = file.build_id(), debug_link(file)
    for path in _places(file.path, build_id, link, folders):
        found = _read(path)
        if found is None or not (has_symbols(found) or has_debug_information(found)):
            continue
        theirs = found.build_id()
        if theirs == build_id if theirs and build_id else link and zlib.crc32(found.content) == link.checksum:
            return found
    return None


def debug_link(file: LinkedFile) -> DebugLink | None:
    """The name, padded with NUL bytes to a multiple of four, then the checksum."""
    section = file.section(".gnu_debuglink")
    content = bytes(file.section_content(section)) if section else b""
    name = os.path.basename(os.fsdecode(content[:-4].split(b"\0", 1)[0]))
    return DebugLink(name, int.from_bytes(content[-4:], "little")) if name else None


def embedded_symbols(file: LinkedFile) -> LinkedFile | None:
    """The file in `.gnu_debugdata`, whose symbol table has the functions that the dynamic one has not; None when there
    is none. Errors: `image-malformed`."""
    section = file.section(".gnu_debugdata")
    if section is None:
        return None
    unpacker = lzma.LZMADecompressor()
    try:
        content = unpacker.decompress(file.section_content(section), _LARGEST_SYMBOL_TABLE)
    except lzma.LZMAError:
        content = b""
    if not unpacker.eof:
        malformed(file.path, "the compressed symbols in .gnu_debugdata cannot be unpacked")
    return read_debug_parts(content, f"{file.path} (.gnu_debugdata)")


def _places(path: str, build_id: str, link: DebugLink | None, folders: Sequence[str]) -> Iterator[Path]:
    if len(build_id) > 2:
        yield from (Path(folder, ".build-id", build_id[:2], f"{build_id[2:]}.debug") for folder in folders)
    if link is not None:
        beside = Path(os.path.realpath(path)).parent
        yield beside / link.name
        yield beside / ".debug" / link.name
        for folder in folders:
            yield Path(folder, *beside.parts[1:], link.name)
            yield Path(folder, link.name)  # lldb's way
    if build_id:
        yield from (cache / build_id / "debuginfo" for cache in _debuginfod_caches())


def _debuginfod_caches() -> Iterator[Path]:
    named = os.environ.get("DEBUGINFOD_CACHE_PATH")
    if named:
        yield Path(named)
    yield Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "debuginfod_client")


def _read(path: Path) -> LinkedFile | None:
    """None for what is no debug file: the next place may have a good one, and an empty file in debuginfod's cache says
    that the server had none."""
    try:
        return read_debug_parts(map_file(str(path)), str(path)) if path.is_file() else None
    except (IpbpError, OSError):
        return None
