"""How much of the processors a program uses, before something was done to it and after.

It is the one measure of a slowdown that needs no knowledge of the program: of one that does its work at its own pace,
the same work takes more of a processor. One that computes all the time uses all that it gets before and after.
"""

from __future__ import annotations

import os
import time
from typing import Optional

from ipbp.errors import IpbpError
from ipbp.host import procfs

_LEAST = 0.3  # seconds for a figure that means something; the kernel counts in hundredths
_AFTER = 1.0  # seconds


class Load:
    """From now on the program's use of the processors is measured."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = self._now()

    def compared(self) -> list[str]:
        """In words, with what it is from now on for a second; [] where it cannot be told."""
        after_from = self._now()
        before = _share(self._began, after_from)
        time.sleep(_AFTER)
        after = _share(after_from, self._now())
        if before is None or after is None:
            return []
        said = f"the program used {before:.0f} % of a processor while this was prepared, and {after:.0f} % just now"
        if max(before, after) >= 90:
            said += "; what computes all the time cannot show how much slower it is"
        return [said]

    def _now(self) -> Optional[tuple[float, float]]:
        # Seconds of the clock, and of all threads.
        try:
            return time.monotonic(), procfs.processor_ticks(self._pid) / os.sysconf("SC_CLK_TCK")
        except IpbpError:  # it has ended; whoever patches it says so
            return None


def _share(one: Optional[tuple[float, float]], other: Optional[tuple[float, float]]) -> Optional[float]:
    if one is None or other is None or other[0] - one[0] < _LEAST:
        return None
    return 100 * (other[1] - one[1]) / (other[0] - one[0])
