"""A moment in which no thread is in any function that a patch changes: `hotpatch --quiet-point`.

By default a call that is under way ends in its old code, so that for a while old and new code run side by side. Who
wants all calls to see the same code has the patch wait for such a moment. What a function was inlined into is changed
itself and counts as well. The program runs on meanwhile, with breakpoints that nobody sees where its threads leave
that code; when the time is up, it is said which thread is where, and nothing was changed.
"""

from __future__ import annotations

import time
from typing import Sequence

from ipbp.errors import IpbpError
from ipbp.host import safepoint
from ipbp.host.inferior import Inferior, NotYet
from ipbp.host.old_code import Version

OCCUPIED = "quiet-point"
TIMEOUT = 10.0  # seconds
_SHOWN = 8
_LOOK_AGAIN = 0.5  # seconds in which a thread should have come to where it leaves the code; it may be by an exception
_ADVICE = (
    "Allow more time with `--timeout SECONDS`, or patch without `--quiet-point`: calls under way then end in old code."
)
_ADVICE_STOPPED = (
    "Leave them with `finish`, or let the program run on in the background and try again: then it is waited for."
)


def require_quiet_point(inferior: Inferior, code: Sequence[Version], deadline: float, runs: bool) -> None:
    """Errors: `quiet-point` with the threads that are in this code, or will come back to it; `NotYet` until the
    `deadline` (time.monotonic), with the addresses at which they leave it. `runs`: the program was running."""
    inside: list[tuple[int, str]] = []
    exits: list[int] = []
    for stack in _near(inferior, code):
        places = [stack.pc, *inferior.return_addresses(stack.thread)]
        found = [(at, row.function) for at in range(len(places)) for row in code if _is_in(places[at], row)]
        inside += [(stack.thread, name) for name in dict.fromkeys(name for _, name in found)]
        # Behind the outermost of these frames; there is none behind the first function of a thread.
        exits += places[found[-1][0] + 1 :][:1] if found else []
    if not inside:
        return
    shown = ", ".join(f"thread {thread} is in '{name}'" for thread, name in inside[:_SHOWN])
    more = f" and {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
    fact = f"functions that the edit changes are under way: {shown}{more}"
    left = deadline - time.monotonic()
    if runs and left > 0:
        raise NotYet(OCCUPIED, fact, _ADVICE, exits, min(left, _LOOK_AGAIN))
    raise IpbpError(OCCUPIED, fact, _ADVICE if runs else _ADVICE_STOPPED)


def _near(inferior: Inferior, code: Sequence[Version]) -> list[safepoint.Stack]:
    ranges = [row.body for row in code if row.size > 1]
    stacks = safepoint.stacks(inferior) if ranges else []
    users = safepoint.users_of(stacks, ranges) if ranges else []
    # A word on the stack may be left over from a call that is over: the debugger is asked about these.
    return [stack for stack in stacks if stack.thread in users]


def _is_in(address: int, version: Version) -> bool:
    start, end = version.body
    return start <= address < end
