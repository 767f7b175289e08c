"""When Python looks for garbage in cycles."""

from __future__ import annotations

import gc


def look_seldom() -> None:
    """Debug information becomes hundreds of thousands of small objects, none of them garbage in a cycle: by default,
    looking for such takes as long as reading."""
    gc.set_threshold(100_000, 20, 50)
