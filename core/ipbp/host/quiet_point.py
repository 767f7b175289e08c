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
from ipbp.host.inferior import Inferior, NotYet, Ranges
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
        # Behind the outermost of these frames; there is none behind the first function of a thread.
        exits += places[found[-1][0] + 1 :][:1] if found else []
        names = [name for _, name in found]
        if not found:
            beyond = _beyond(stack, places[-1], [row.body for row in code if row.size > 1])
            names = [row.function for word in beyond for row in code if _is_in(word, row)]
            exits += [word for word in beyond if _follows_call(inferior, word)]
        inside += [(stack.thread, name) for name in dict.fromkeys(names)]
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


def _beyond(stack: safepoint.Stack, outermost: int, ranges: Ranges) -> list[int]:
    """Words that point into these, of the part of the stack that the debugger found no way through: lldb (19) does not
    get out of some functions of the C library. Behind the outermost frame of a thread there are none."""
    at = stack.content.find(outermost.to_bytes(8, "little"))
    return safepoint.words_in(stack.content[at - at % 8 if at >= 0 else 0 :], ranges)


def _follows_call(inferior: Inferior, address: int) -> bool:
    """Whether a breakpoint there is surely one at an instruction, to which a call returns (Intel SDM vol. 2, CALL)."""
    before = inferior.read(address - 6, 6)
    is_near = before[1] == 0xE8 or before[:2] == b"\xff\x15"  # call rel32; call [rip+rel32]
    return is_near or (before[4] == 0xFF and before[5] & 0xF8 == 0xD0)  # call reg


def _is_in(address: int, version: Version) -> bool:
    start, end = version.body
    return start <= address < end
