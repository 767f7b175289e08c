"""Something that is tried again after the program has run on for a moment.

In some debuggers an attempt is over when the call returns, in others it has only begun then and ends in the debugger's
own loop (`Inferior.while_stopped`). Here both are one loop, so that many attempts do not nest.
"""

from __future__ import annotations

import time
from typing import Callable

from ipbp.host.inferior import Inferior

_PAUSES = (0.001, 0.002, 0.005, 0.01)  # seconds in which the program runs; the last one for all that follow


class Attempts:
    """`attempt` is made once for each `go_on`. A program that the user has stopped does not run in between."""

    def __init__(self, inferior: Inferior, attempt: Callable[[], None]) -> None:
        self._attempt = attempt
        self._runs_between = not inferior.describe().stopped
        self._made = 0
        self._wanted = 0
        self._is_looping = False

    def may_repeat(self, most: int) -> bool:
        """Whether another attempt makes sense, where `most` do."""
        return self._runs_between and self._made < most

    def go_on(self) -> None:
        """Make the (next) attempt, now or as soon as the one under way is over."""
        self._wanted += 1
        if self._is_looping:
            return
        self._is_looping = True
        try:
            while self._made < self._wanted:
                if self._made:
                    time.sleep(_PAUSES[min(self._made, len(_PAUSES)) - 1])
                self._made += 1
                self._attempt()
        finally:
            self._is_looping = False
