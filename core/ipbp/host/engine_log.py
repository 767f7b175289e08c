"""Where the engine's stderr goes: a file, because nobody drains a pipe between two requests. It is kept short."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from ipbp.errors import IpbpError
from ipbp.host.journal import state_folder
from ipbp.host.private import append_private

_LIMIT = 1 << 20  # bytes
_SHOWN = 4096  # bytes of it that an error quotes at most
_LINES = 12


class EngineLog:
    """`engine.log` in the state folder, shared by all engines: each appends, and remembers where it began."""

    def __init__(self) -> None:
        self.path = Path()
        self._start = 0

    def open(self) -> BinaryIO:
        self.path = state_folder() / "engine.log"
        self.keep_short()
        try:
            log = append_private(self.path)
        except OSError as error:
            raise IpbpError("engine-start", f"{self.path}: {error.strerror}", "Remove that file.") from error
        self._start = log.tell()
        return log

    def keep_short(self) -> None:
        """Empty it when it has grown too long. Writers append, so they go on at its new end."""
        if self.path.is_file() and self.path.stat().st_size > _LIMIT:
            os.truncate(self.path, 0)
            self._start = 0

    def last_lines(self) -> str:
        """The last lines since `open`."""
        size = self.path.stat().st_size
        begin = self._start if self._start <= size else 0
        with open(self.path, "rb") as log:
            log.seek(max(begin, size - _SHOWN))
            text = log.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-_LINES:])
