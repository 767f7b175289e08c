"""New variables get their values: their constructors run once, in one of the program's threads.

All others are held, and the debugger sets a time limit, so one that waits for a lock of a held thread ends by that. It
is code of the user's, and may fail: what it throws is caught by a function of the patch's, a crash and the end of the
time by the debugger, which puts the thread back to where it was. The patch is then taken back, as far as that is
possible: its memory stays, for pointers to it may be anywhere, and so may destructors that are to run at exit.
"""

from __future__ import annotations

import re
import struct
from time import monotonic
from typing import Iterable

from ipbp.errors import IpbpError
from ipbp.host.inferior import Inferior
from ipbp.host.rollback import Steps, write_surely
from ipbp.protocol import Initialiser

FAILED = "initialiser-failed"
_REPORT = struct.Struct("<Q4s4xQ256s")  # `ipbp.arch.catcher`
_LONGEST_NAME = 512
_TIME_IS_UP = "SIGSTOP"  # by which a call ends that takes too long
_BUILTIN = {"i": "int", "j": "unsigned int", "l": "long", "m": "unsigned long", "PKc": "const char *", "b": "bool"}


def initialise(steps: Steps, initialisers: Iterable[Initialiser]) -> None:
    """Run each of them, in order. Errors: `initialiser-failed`."""
    for row in initialisers:
        steps.memory_kept = True
        thrown = _run(steps.inferior, row)
        if thrown:
            raise _failed(row, thrown)


def _run(inferior: Inferior, row: Initialiser) -> str:
    # What it threw, in words; "" when it came to its end.
    if not row.catcher:
        _call(inferior, row, row.address, ())
        return ""
    if _call(inferior, row, row.catcher, (row.address, row.report)) == 0:
        return ""
    _, _, kind, text = _REPORT.unpack(inferior.read(row.report, _REPORT.size))
    name = type_name(_string(inferior, _word(inferior, kind + 8))) if kind else "something"
    said = text.partition(b"\0")[0].decode("utf-8", "replace")
    return f"threw {name}: {said}" if said else f"threw {name}"


def _call(inferior: Inferior, row: Initialiser, address: int, arguments: tuple[int, ...]) -> int:
    began = monotonic()
    try:
        return inferior.call(address, arguments)
    except IpbpError as error:
        if row.report:
            _put_errno_back(inferior, row.report)
        if error.code != "inferior-call":
            raise
        if _TIME_IS_UP in error.fact:
            seconds = round(monotonic() - began)
            what = f"was not done after {seconds} seconds; it may wait for another thread, all of which are held"
        else:
            what = "crashed: " + error.fact.partition("did not come back: ")[2].partition("\n")[0]
        raise _failed(row, what) from error


def _put_errno_back(inferior: Inferior, report: int) -> None:
    where, errno, _, _ = _REPORT.unpack(inferior.read(report, _REPORT.size))
    if where:
        write_surely(inferior, where, errno)


def _failed(row: Initialiser, what: str) -> IpbpError:
    names = ", ".join(f"'{name}'" for name in row.variables) or "a function that runs before main"
    return IpbpError(
        FAILED,
        f"{row.file}: the initialisation of {names} {what}",
        "Correct it and try again; the program runs its old code. What the initialisation did until then stays: "
        "objects that it made, and their destructors, which run at exit.",
    )


def type_name(mangled: str) -> str:
    """The name of a class as it is written in the source, for the simple ones; others as they are (Itanium C++ ABI,
    5.1)."""
    if mangled in _BUILTIN:
        return _BUILTIN[mangled]
    rest, parts = mangled, []
    nested = rest.startswith("N") and rest.endswith("E")
    rest = rest[1:-1] if nested else rest
    if rest.startswith("St"):
        parts.append("std")
        rest = rest[2:]
    while rest:
        match = re.match(r"\d+", rest)
        if match is None or len(rest) < match.end() + int(match[0]):
            return mangled
        end = match.end() + int(match[0])
        parts.append(rest[match.end() : end])
        rest = rest[end:]
    return "::".join(parts)


def _word(inferior: Inferior, address: int) -> int:
    return int.from_bytes(inferior.read(address, 8), "little")


def _string(inferior: Inferior, address: int) -> str:
    # A C string; gcc puts a * before a name that is not to be compared as text.
    content = b""
    while b"\0" not in content and len(content) < _LONGEST_NAME:
        content += inferior.read(address + len(content), 16)
    return content.partition(b"\0")[0].decode("utf-8", "replace").lstrip("*")
