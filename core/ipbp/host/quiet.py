"""Whether a function of the program may be called now, while all its threads are held.

What is called may want a lock, and a lock that a held thread has is never given back. Which locks are taken nobody can
see; but a thread has one only while it is in the code that takes it, or will return to there. The engine says which
code that is (`ipbp.protocol.Quiet`). Every word of a stack that could be a return address counts at first, for that
costs little; then the debugger is asked whether it really is one.
"""

from __future__ import annotations

from ipbp.errors import IpbpError
from ipbp.host import safepoint
from ipbp.host.abi import abi_of
from ipbp.host.inferior import Inferior, Ranges
from ipbp.host.old_callers import places_of
from ipbp.protocol import Quiet

BUSY = "program-busy"


def require_quiet(inferior: Inferior, quiet: Quiet) -> None:
    """Errors: `program-busy` when a thread is where it may hold a lock."""
    if not quiet.held and not quiet.moving:
        return
    busy = [stack.thread for stack in safepoint.stacks(inferior) if _is_busy(inferior, quiet, stack)]
    if busy:
        raise IpbpError(
            BUSY,
            f"thread {', '.join(map(str, busy))} is just in a library where it may hold a lock that is needed",
            "Continue for a moment and try again.",
        )


def _is_busy(inferior: Inferior, quiet: Quiet, stack: safepoint.Stack) -> bool:
    if _inside(stack.pc, quiet.held):
        return True
    if _inside(stack.pc, quiet.moving) and not _is_in_system_call(inferior, stack.pc):
        return True
    if not quiet.held or not safepoint.users_of([stack], quiet.held):
        return False
    found = inferior.return_addresses(stack.thread)
    # What is beyond the reach of the debugger's unwinder counts. But a thread that waits may do so for ever, with a
    # word like that left over from what it did before; of such a one the debugger is believed.
    is_waiting = bool(found) and _is_in_system_call(inferior, stack.pc)
    if any(_inside(address, quiet.held) for address in (stack.link, *found)):
        return True
    return not is_waiting and any(
        _inside(address, quiet.held) and _is_behind_call(inferior, address, quiet.held)
        for address in places_of(stack, found, quiet.held)
    )


def _is_behind_call(inferior: Inferior, address: int, ranges: Ranges) -> bool:
    """A word that is the address of a function, or of the file that is mapped there, is none to return to, as far as a
    call can be told from what stands before that."""
    abi = abi_of(inferior.describe())
    if not abi.call_size:
        return True
    before = address - abi.call_size
    return _inside(before, ranges) and abi.is_call(inferior.read(before, abi.call_size))


def _inside(address: int, ranges: Ranges) -> bool:
    return any(start <= address < end for start, end in ranges)


def _is_in_system_call(inferior: Inferior, pc: int) -> bool:
    abi = abi_of(inferior.describe())
    size = len(abi.syscall)
    # Where the kernel makes a call again it has put the thread back before it.
    places = [pc - size] if abi.restarts else [pc - size, pc]
    return any(inferior.read(place, size) == abi.syscall for place in places)
