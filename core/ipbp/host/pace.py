"""Whether what takes many steps will end in time."""

from __future__ import annotations

import time

_HICCUP = 0.2
"""Seconds before which nothing is concluded: on a busy machine any step may take long once."""


class Pace:
    """Of something that begins now and may take so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._start = time.monotonic()

    def is_kept(self, done: int, of: int) -> bool:
        """Whether all of it will be done in time, when `done` of it is."""
        passed = time.monotonic() - self._start
        return passed < _HICCUP or passed * of <= self._seconds * done
