"""What ntdll.dll of a process of Windows does for a patch: it is told of the unwind rows of new code.

RtlAddFunctionTable takes memory from the heap, and a lock that guards the tables. Both locks are held only by threads
that are in ntdll.dll or will return to there; but every thread began there, waits there in its stubs for system calls,
and is there when a debugger has interrupted the program, which hold nothing. Whoever waits in there for a lock of the
program's own counts as busy, too.
"""

from __future__ import annotations

from bisect import bisect_right

from ipbp.errors import IpbpError
from ipbp.formats.coff_process import Memory, WindowsProcess
from ipbp.graph.layout import Unwinder
from ipbp.host.pe_memory import exports, function_at
from ipbp.protocol import Quiet

_LIBRARY = "ntdll.dll"
_STUBS = ("Nt", "Zw")
_STUB_SIZE = 32  # of a stub of Windows; Wine's have 16 or as many
_HARMLESS = ("RtlUserThreadStart", "DbgUiRemoteBreakin", "DbgBreakPoint")


def unwinder_of(process: WindowsProcess) -> Unwinder:
    """What is told of new code's rows. Errors: `undefined-symbol` where there is no such thing."""
    found = exports(Memory(process.read), process.library(_LIBRARY))
    add, delete = found.get("RtlAddFunctionTable"), found.get("RtlDeleteFunctionTable")
    if add is None or delete is None:
        raise IpbpError(
            "undefined-symbol",
            f"{_LIBRARY} of the process has no RtlAddFunctionTable, which is told of new code",
            "Run the program on Windows or Wine for x86-64.",
        )
    return Unwinder(add, delete, takes_record=False, base=process.executable_image().start)


def quiet_of(process: WindowsProcess) -> Quiet:
    """Where no thread may be when it is told."""
    module, memory = process.library(_LIBRARY), Memory(process.read)
    places = exports(memory, module)
    ends = [*sorted(places.values()), module.start + module.size]
    free = []
    for name, start in places.items():
        following = ends[bisect_right(ends, start)]
        if name in _HARMLESS:
            free.append((start, min(following, function_at(memory, module, start)[1])))
        elif name.startswith(_STUBS) and name[2:3].isupper():
            free.append((start, min(following, start + _STUB_SIZE)))
    return Quiet(held=tuple(_without(process.code_of(module), sorted(free))))


def _without(ranges: list[tuple[int, int]], free: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of half-open ranges; `free` in order."""
    left = []
    for start, end in ranges:
        for low, high in free:
            if start < low < end:
                left.append((start, low))
            if low < end and high > start:
                start = max(start, high)
        if start < end:
            left.append((start, end))
    return left
