"""The symbols of large programs on disk, ready to be mapped: sorted, and with the hashes of their names.

What is kept is all that depends on the file alone, in link addresses. The names are not: a row says where in the
file's string table the name stands. A file is known by its build id, its size and its headers; without a build id
nothing is kept. A kept index that is damaged, or that another version wrote, is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ipbp.formats.elf_linked import LinkedFile
from ipbp.formats.elf_symbol_table import static_strings
from ipbp.graph.columns import I64, U8, U64
from ipbp.graph.image import ImageSymbols
from ipbp.graph.name_index import NameIndex
from ipbp.graph.names import Names
from ipbp.graph.rows import ByteRows

_MAGIC = b"ipbp-symbols-2\0\0"  # another number whenever a column, or a hash, means something else
_HEADER = struct.Struct("<16sQQQ")  # magic, checksum of the words that follow, symbols, bytes of file names
_WIDE = 7  # columns of 64 bits; two of 8 bits follow
_KEPT_BYTES = 1 << 29
_KEPT_FILES = 64
_FULL = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class IndexCache:
    """A folder of kept indexes, which only its owner can write to."""

    folder: Path

    def load(self, file: LinkedFile, tls_start: int) -> ImageSymbols | None:
        """The kept symbols of a file, in link addresses; `tls_start` was added to those of thread-local variables."""
        path = self._path(file, tls_start)
        content = _mapped(path) if path is not None else None
        if path is None or content is None:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # pruning goes by the last use
        return _unpacked(content, np.frombuffer(bytes(static_strings(file)), np.uint8))

    def keep(self, file: LinkedFile, tls_start: int, symbols: ImageSymbols) -> None:
        """Keep the symbols, whose names stand in the string table of the static symbols of `file`."""
        path = self._path(file, tls_start)
        if path is None:
            return
        # A full disk costs the next start some time, and nothing else.
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix="new-")
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.writelines(_packed(symbols))
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
            self._prune(path)

    def _path(self, file: LinkedFile, tls_start: int) -> Path | None:
        build_id = file.build_id()
        if not build_id:
            return None
        text = f"{build_id} {len(file.content)} {tls_start} {file.segments} {file.sections}"
        return self.folder / f"{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()}.symbols"

    def _prune(self, newest: Path) -> None:
        """Remove the least recently used files until their number and their size are in bounds."""
        rows = []
        for path in self.folder.glob("*.symbols"):
            with contextlib.suppress(FileNotFoundError):  # another process pruned it first
                status = path.stat()
                rows.append((status.st_mtime, status.st_size, path))
        total = 0
        for number, (_used, size, path) in enumerate(sorted(rows, reverse=True)):
            total += size
            if path != newest and (number >= _KEPT_FILES or total > _KEPT_BYTES):
                path.unlink(missing_ok=True)


def _mapped(path: Path) -> memoryview | None:
    try:
        with path.open("rb") as stream:
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # there is none, or an empty one
        return None


def _packed(symbols: ImageSymbols) -> Iterator[bytes | memoryview]:
    rows, (hashed, row) = symbols.name.rows, symbols.by_name.columns()
    files = b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in symbols.files)
    wide = [rows.start, rows.length, symbols.address, symbols.size, symbols.file, hashed.view(np.int64), row]
    body = [np.ascontiguousarray(column, dtype="<i8") for column in wide]
    narrow = symbols.binding.tobytes() + symbols.type.tobytes() + files
    narrow += bytes(-len(narrow) % 8)
    words = [*(column.view("<u8") for column in body), np.frombuffer(narrow, "<u8")]
    yield _HEADER.pack(_MAGIC, _checksum(*words), len(symbols.address), len(files))
    yield from (column.data for column in body)
    yield narrow


def _unpacked(content: memoryview, octets: U8) -> ImageSymbols | None:
    if len(content) < _HEADER.size or len(content) % 8:
        return None
    magic, checksum, count, file_bytes = _HEADER.unpack(content[: _HEADER.size])
    body = content[_HEADER.size :]
    used = count * (8 * _WIDE + 2) + file_bytes
    if magic != _MAGIC or len(body) != used + -used % 8 or checksum != _checksum(np.frombuffer(body, "<u8")):
        return None
    wide = np.frombuffer(body, "<i8", _WIDE * count).reshape(_WIDE, count)
    start, length, address, size, file, hashed, row = wide
    if count and (int(start.min()) < 0 or int((start + length).max()) > len(octets)):
        return None
    narrow = np.frombuffer(body, np.uint8, 2 * count, 8 * _WIDE * count).reshape(2, count)
    texts = bytes(body[used - file_bytes : used]).split(b"\0")[:-1]
    names = Names(ByteRows(octets, start, length))
    return ImageSymbols(
        name=names,
        address=address,
        size=size,
        binding=narrow[0],
        type=narrow[1],
        file=file,
        files=tuple(text.decode("utf-8", "surrogateescape") for text in texts),
        by_name=NameIndex(names, (hashed.view(np.uint64), row)),
    )


def _checksum(*parts: U64) -> int:
    """Enough for bits that fell over and pages that were lost, at the speed of memory; the folder is nobody else's."""
    total, mixed = 0, 0
    for words in parts:
        total, mixed = total + int(words.sum()), mixed ^ int(np.bitwise_xor.reduce(words))
    return ((total & _FULL) * 3 ^ mixed) & _FULL


def at_bias(symbols: ImageSymbols, bias: int) -> ImageSymbols:
    """The symbols of an image that is loaded there."""
    address: I64 = symbols.address + bias
    return replace(symbols, address=address)
