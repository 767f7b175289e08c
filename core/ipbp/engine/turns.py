"""How Python's threads take turns."""

from __future__ import annotations

import sys

_SECONDS = 0.0005


def take_short_turns() -> None:
    """While one thread computes, another one that only waits for files gets its turn after each of them. By default it
    waits 5 ms for it, for each of a hundred files."""
    sys.setswitchinterval(_SECONDS)
