"""A thread's step behind lldb's back, in a stop that lldb's user does not see.

When lldb itself steps a thread, it takes the terminal from the program for that time and gives it back too late: a
prompt appears, and what the user types next goes to lldb. lldb's server steps the thread just as well when it is told
in its own language (the GDB remote protocol, "vCont Packet"), four times as fast, and lldb goes on seeing one stop.
"""

from __future__ import annotations

import re
import signal
from typing import Callable, Optional

import lldb

from ipbp.errors import IpbpError

_TRIES = 8
_RIP = re.compile(r";10:([0-9a-f]{16});")  # lldb-server's number of rip, and its bytes


def step(interpreter: lldb.SBCommandInterpreter, thread: int, passes: Callable[[int], bool]) -> int:
    """One instruction of the thread, all others held; its pc. A signal that comes before is delivered as the kernel
    would, to the first instruction of its handler, if lldb `passes` it to the program.

    Errors: `inferior-step`, `inferior-gone`.
    """
    action = "s"
    for _ in range(_TRIES):
        reply = _answer(interpreter, f"vCont;{action}:{thread:x}")
        if reply is None or reply[:1] in "EO":
            raise IpbpError("inferior-step", f"lldb's server cannot step thread {thread}: {reply}", "Try again.")
        if reply[:1] in "WX":
            raise IpbpError("inferior-gone", "the program has ended", "Start it again.")
        number = int(reply[1:3], 16)
        found = _RIP.search(reply)
        if number == signal.SIGTRAP and found is not None:
            return int.from_bytes(bytes.fromhex(found[1]), "little")
        action = f"S{number:02x}" if passes(number) else "s"
    raise IpbpError("inferior-step", f"signals keep thread {thread} from a step", "Continue and try again.")


def _answer(interpreter: lldb.SBCommandInterpreter, packet: str) -> Optional[str]:
    result = lldb.SBCommandReturnObject()
    interpreter.HandleCommand(f"process plugin packet send {packet}", result)
    found = re.search(r"^response: (\S+)", result.GetOutput() or "", re.MULTILINE)
    return found[1] if found else None
