"""Sections that a compiler or a linker compressed (gABI, "Compressed Sections").

The size stands in front of the stream; no more than that is ever unpacked, whatever the stream would give.
"""

from __future__ import annotations

import sys
import zlib
from io import BytesIO

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    import zstandard

ZLIB, ZSTD = 1, 2
_HEADER = 24  # Elf64_Chdr: type, reserved, size, alignment


def method_of(stored: bytes | memoryview) -> int:
    """ch_type of a section that has the flag SHF_COMPRESSED. Errors: ValueError when there is no header."""
    if len(stored) < _HEADER:
        raise ValueError("too short")
    return int.from_bytes(stored[:4], "little")


def decompressed(stored: bytes | memoryview) -> bytes:
    """The content of a section that has the flag SHF_COMPRESSED. Errors: ValueError, also for a method that is not
    known (ask `method_of`)."""
    method, size = method_of(stored), int.from_bytes(stored[8:16], "little")
    if method == ZLIB:
        # Deflate cannot grow data by more than 1032 times: a larger promise is a lie and would only eat memory.
        content = _inflated(bytes(stored[_HEADER:]), size) if size <= 1032 * len(stored) else b""
    elif method == ZSTD:
        content = _unpacked(bytes(stored[_HEADER:]), size)
    else:
        raise ValueError(f"compressed by the unknown method {method}")
    if len(content) != size:
        raise ValueError("not as long as it says")
    return content


def decompressed_gnu(stored: bytes | memoryview) -> bytes:
    """The content of a `.zdebug_*` section, as compilers wrote them before the gABI had its own form: "ZLIB", the size
    (big-endian), the stream. Errors: ValueError."""
    size = int.from_bytes(stored[4:12], "big")
    if bytes(stored[:4]) != b"ZLIB" or size > 1032 * len(stored):
        raise ValueError("no header")
    return _inflated(bytes(stored[12:]), size)


def _inflated(stream: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(stream, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _unpacked(stream: bytes, size: int) -> bytes:
    if sys.version_info >= (3, 14):
        try:
            return zstd.ZstdFile(BytesIO(stream)).read(size + 1)
        except (zstd.ZstdError, EOFError) as error:
            raise ValueError(str(error)) from error
    try:
        with zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True) as reader:
            content: bytes = reader.read(size + 1)
            return content
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
