"""What is being done, said when it takes longer than anybody likes to look at nothing."""

from __future__ import annotations

import time
from typing import Callable

_PATIENCE = 0.5  # seconds in which nothing is said


class Progress:
    """Of one request. `show` gets a line for each thing that is still being done half a second after the last one was
    shown; what is done sooner is not mentioned."""

    def __init__(self, show: Callable[[str], None], first: str) -> None:
        self._show = show
        self._doing = first
        self._since = time.monotonic()

    def tell(self, text: str) -> None:
        """From now on this is being done."""
        self._look()
        self._doing = text

    def watching(self, interrupted: Callable[[], bool]) -> Callable[[], bool]:
        """`interrupted`, which is asked all the time, with a look at the clock."""

        def asked() -> bool:
            self._look()
            return interrupted()

        return asked

    def _look(self) -> None:
        if self._doing and time.monotonic() > self._since + _PATIENCE:
            self._show(f"{self._doing} ...")
            self._doing, self._since = "", time.monotonic()
