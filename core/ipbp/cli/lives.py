"""Waiting for something to be read while processes live (pidfd_open(2))."""

from __future__ import annotations

import os
import select
from collections.abc import Collection
from contextlib import ExitStack


class Lives:
    """There is nobody to wait for when all of these have ended; none for whoever waits for ever. `with` closes it."""

    def __init__(self, pids: Collection[int]) -> None:
        self._stack = ExitStack()
        self._ends: set[int] = set()
        self._waits_for_ever = not pids
        for pid in pids:
            try:
                self._ends.add(os.pidfd_open(pid))
            except OSError:  # it has ended
                continue
        for end in self._ends:
            self._stack.callback(os.close, end)

    def __enter__(self) -> Lives:
        return self

    def __exit__(self, *unused: object) -> None:
        self._stack.close()

    def wait(self, file: int) -> bool:
        """Whether something can be read from this file; else all have ended."""
        while self._ends or self._waits_for_ever:
            ready, _, _ = select.select([file, *self._ends], [], [])
            self._ends.difference_update(ready)
            if file in ready:
                return True
        return False
