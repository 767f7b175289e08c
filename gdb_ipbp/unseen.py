"""What the machine interface tells its front end of stops that are ours is kept from it.

gdb has no setting against its records of a stop and of the resumption. A front end believes them: cpptools calls the
one of a catchpoint, which has no reason, an unknown exception, and shows the program as stopped from then on, for the
record of the resumption comes before it has looked around. So in between what gdb writes goes to a file of ours, and
on to the front end without these records.
"""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import contextmanager
from typing import Iterator, Optional

import gdb

from gdb_ipbp.prompt import is_machine_interface

# Of the stop and what the console shows of it, of the resumption, of breakpoints and of settings.
_OURS = re.compile(
    rb"""^(?:[*](?:stopped|running)\b|\^running$|=(?:breakpoint-\w+|cmd-param-changed),|[~&]").*\n""", re.MULTILINE
)
_CONDITION = "_ipbp_unseen"
_libc = ctypes.CDLL(None)


class _Held:
    """`output`: where gdb's output goes in truth, while `file` has it."""

    output: Optional[int] = None
    file = -1


def hold() -> None:
    """From now on nothing is told."""
    if _Held.output is None and is_machine_interface():
        _flush()
        _Held.output, _Held.file = os.dup(1), os.memfd_create("ipbp")
        os.dup2(_Held.file, 1)


def let_go(is_ours: bool) -> None:
    """All is told again, also what was held back: all of it, or all but the records of what was done for us."""
    if _Held.output is None:
        return
    _flush()
    os.dup2(_Held.output, 1)
    size = os.fstat(_Held.file).st_size
    content = os.pread(_Held.file, size, 0)
    os.close(_Held.output)
    os.close(_Held.file)
    _Held.output = None
    content = _OURS.sub(b"", content) if is_ours else content
    while content:
        content = content[os.write(1, content) :]


@contextmanager
def unseen() -> Iterator[None]:
    """In here everything is done for us."""
    hold()
    try:
        yield
    finally:
        let_go(is_ours=True)


def condition() -> Optional[str]:
    """Of a breakpoint of ours: it always holds, and is looked at before anything is told of the stop."""
    if not is_machine_interface():
        return None
    _Condition()
    return f"${_CONDITION}()"


class _Condition(gdb.Function):  # type: ignore[misc]
    """The convenience function."""

    def __init__(self) -> None:
        super().__init__(_CONDITION)

    def invoke(self) -> bool:
        hold()
        return True


def _flush() -> None:
    # gdb writes records through the C library's stream.
    _libc.fflush(ctypes.c_void_p.in_dll(_libc, "stdout"))
