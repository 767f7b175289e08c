"""The way back from a half-done change: for each step, said before it is made, what takes it back."""

from __future__ import annotations

import time
from functools import partial
from typing import Callable, Iterable, Optional, Sequence

from ipbp.errors import IpbpError
from ipbp.host import safepoint
from ipbp.host.inferior import Breakpoint, Inferior, Ranges
from ipbp.protocol import Region, Replacement

_ENDING = 0.5  # seconds


class Steps:
    """Steps that know their way back. `memory_kept`: the patch's own memory must stay as it is, because the
    program may have pointers into it. `disarmed`: breakpoints that are off for the time being."""

    def __init__(self, inferior: Inferior) -> None:
        self.inferior = inferior
        self.memory_kept = False
        self.disarmed: list[Breakpoint] = []
        self._ways_back: list[Callable[[], None]] = []

    def will(self, way_back: Callable[[], None]) -> None:
        """Said *before* the step: one that fails may have had its effect, or half of it."""
        self._ways_back.append(way_back)

    def clear(
        self, changes: Sequence[Replacement], forbidden: Ranges, regions: Optional[Sequence[Region]] = None
    ) -> safepoint.Cleared:
        """Breakpoints out of the bytes that change, so that none is stepped on or written over; then threads out
        of `forbidden`."""
        self.will(lambda: self.inferior.rearm(self.disarmed))
        self.disarmed = self.inferior.disarm([(c.address, c.address + len(c.expected)) for c in changes])
        return safepoint.clear(self.inferior, forbidden, regions)

    def rearm(self, breakpoints: Iterable[Breakpoint]) -> None:
        points = list(breakpoints)
        self.will(partial(self._disarm, points))
        self.inferior.rearm(points)

    def go_back(self, cause: BaseException) -> None:
        """Every step's way back, last first. One that fails does not keep the others from being gone.

        Errors: `rollback-incomplete`, with all that failed; `inferior-gone` when there is no program any more.
        """
        failures = [failure for failure in map(_insist, reversed(self._ways_back)) if failure]
        is_doubtful = isinstance(cause, IpbpError) and cause.code.startswith("inferior-")
        if (failures or is_doubtful) and _is_gone(self.inferior, _ENDING if failures else 0.0):
            raise IpbpError("inferior-gone", "the program ended while it was patched", "Start it again.") from cause
        if failures:
            raise IpbpError(
                "rollback-incomplete",
                f"{fact_of(cause)}; and not everything could be put back",
                "Do not continue the program: `hotpatch status` tries again; if it cannot, restart the program.",
                "\n".join(failures),
            ) from cause

    def _disarm(self, points: Sequence[Breakpoint]) -> None:
        self.inferior.disarm([(point.address, point.address + 1) for point in points])


def _is_gone(inferior: Inferior, patience: float) -> bool:
    """`patience`: seconds for one that still looks alive: debuggers hear late of a death, and what was killed takes a
    moment to end, in which its threads run. Its memory goes first (do_exit() in kernel/exit.c)."""
    began = time.monotonic()
    while True:
        try:
            inferior.threads()
            if not inferior.regions():
                return True
            is_over = time.monotonic() > began + patience
        except IpbpError as error:
            if error.code != "inferior-running":
                return error.code in ("inferior-gone", "inferior-none")
            is_over = time.monotonic() > began + _ENDING
        if is_over:
            return False
        time.sleep(0.01)


def write_surely(inferior: Inferior, address: int, content: bytes) -> None:
    """Write, and read back. Errors: `write-lost`."""
    inferior.write(address, content)
    if inferior.read(address, len(content)) != content:
        raise write_lost(address, len(content))


def write_lost(address: int, size: int) -> IpbpError:
    return IpbpError(
        "write-lost",
        f"{size} bytes were written at {address:#x} and are not there",
        "Report this as a bug, with the debugger's version.",
    )


def rolled_back(cause: BaseException) -> Optional[IpbpError]:
    """The error to raise after everything was put back; None for one that already says that nothing was changed."""
    if isinstance(cause, IpbpError):
        if cause.code == "refused":
            return None
        return IpbpError(cause.code, f"{cause.fact}; rolled back", cause.advice, cause.detail)
    if isinstance(cause, KeyboardInterrupt):
        return IpbpError(
            "interrupted", "interrupted; rolled back", "Try again when you like: the program is as it was before."
        )
    return IpbpError("bug", f"{fact_of(cause)}; rolled back", "The program is as it was before. Please report this.")


def fact_of(cause: BaseException) -> str:
    if isinstance(cause, IpbpError):
        return cause.fact
    return "interrupted" if isinstance(cause, KeyboardInterrupt) else f"{type(cause).__name__}: {cause}"


def _insist(way_back: Callable[[], None]) -> str:
    # "" or what went wrong. A second Ctrl-C must not tear the way back.
    for _ in range(3):
        try:
            way_back()
        except KeyboardInterrupt:
            continue
        except Exception as error:  # reported by go_back, together with what the other ways met
            return fact_of(error)
        return ""
    return "interrupted again and again"
