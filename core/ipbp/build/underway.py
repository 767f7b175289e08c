"""A compiler that has made what is asked of it, and has not ended yet.

rustc calls the linker of a program when its objects are final and its incremental directory is finished, and needs ten
milliseconds more to end. What is made of the objects can begin then. It counts when the compiler has ended well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_PAUSE = 0.002
"""Seconds between two looks."""


class Underway:
    """`run`, which returns what the compiler says or raises, at work in a thread."""

    def __init__(self, run: Callable[[], str]) -> None:
        self._run = run
        self._said = ""
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def wait_for(self, is_made: Callable[[], bool]) -> None:
        """Until that is so, or it has ended."""
        while not self._over.wait(_PAUSE) and not is_made():
            continue

    def ended(self) -> str:
        """What it said, when it has ended. Raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._said

    def _work(self) -> None:
        try:
            self._said = self._run()
        except BaseException as error:  # it is raised where the end is waited for
            self._error = error
        finally:
            self._over.set()
