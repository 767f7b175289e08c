"""A part of a file as a stream of its own, of which little is in memory at a time."""

from __future__ import annotations

import os

_PIECE = 1 << 16


class Window:
    """`size` bytes from `start` of the open file `descriptor`, which may be closed afterwards. What BytesIO has, as far
    as pyelftools and the readers of debug information ask for it."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor, self._start, self._size = os.dup(descriptor), start, size
        self._at = 0
        self._piece, self._piece_at = b"", 0

    def __del__(self) -> None:
        os.close(self._descriptor)

    def __len__(self) -> int:
        return self._size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        size = left if size is None or size < 0 else min(size, left)
        begin = self._at - self._piece_at
        if begin < 0 or begin + size > len(self._piece):
            self._piece = self._pread(self._at, min(max(size, _PIECE), left))
            self._piece_at, begin = self._at, 0
        self._at += size
        return self._piece[begin : begin + size]

    def getvalue(self) -> bytes:
        """All of it."""
        return self._pread(0, self._size)

    def _pread(self, at: int, size: int) -> bytes:
        parts = []
        while size > 0:  # the kernel gives at most 2 GiB at once (read(2))
            part = os.pread(self._descriptor, size, self._start + at)
            if not part:  # the file became shorter meanwhile
                break
            parts.append(part)
            at, size = at + len(part), size - len(part)
        return b"".join(parts)
