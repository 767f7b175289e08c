"""Calls in the program on processors whose vector registers gdb cannot write.

gdb (13) writes a thread's extended state in 2696 bytes (X86_XSTATE_MAX_SIZE, gdbsupport/x86-xstate.h). With AMX it has
11008, and the kernel takes all of it or says EFAULT (xstateregs_set, arch/x86/kernel/fpu/regset.c). After a call gdb
writes every register that is not what it was, and fails there: with it fails the command, and the thread has lost the
number of the system call that it was in. So before gdb comes to that, the extended state is put back past gdb, which
then has nothing left to write. The place for it is a breakpoint of ours where gdb has the function return to.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import gdb

from gdb_ipbp import ptrace

_WRITTEN_BY_GDB = 2696  # bytes
_RED_ZONE = 128  # psABI, "The Stack Frame"


@contextmanager
def kept(thread: int) -> Iterator[None]:
    """For one call in the selected thread, whose number in the kernel this is. When it fails all of the thread's
    registers are put back."""
    state = ptrace.read_extended_state(thread)
    if len(state) <= _WRITTEN_BY_GDB:
        yield
        return
    before = ptrace.read_registers(thread)
    # i386_push_dummy_code (gdb/i386-tdep.c): the last byte above the red zone, at an address that 16 divides.
    back = _Return(before["rsp"] - _RED_ZONE & ~15, thread, state)
    gdb.events.stop.connect(back.on_stop)
    try:
        yield
    except gdb.error:
        back.put_back()
        ptrace.write_registers(thread, before)
        _read_anew()
        raise
    finally:
        gdb.events.stop.disconnect(back.on_stop)
        back.delete()


class _Return(gdb.Breakpoint):  # type: ignore[misc]
    """Where the function returns to, below `end`."""

    def __init__(self, end: int, thread: int, state: bytes) -> None:
        super().__init__(f"*{end - 1:#x}", internal=True)
        self.silent = True
        self._thread = thread
        self._state = state

    def stop(self) -> bool:
        self.put_back()
        return False

    def on_stop(self, event: gdb.StopEvent) -> None:
        """A signal has ended the call: gdb is about to take the frame away."""
        if isinstance(event, gdb.SignalEvent):
            self.put_back()

    def put_back(self) -> None:
        ptrace.write_extended_state(self._thread, self._state)
        _read_anew()


def _read_anew() -> None:
    # gdb writes no register of which it knows that it has the value already (regcache::raw_write).
    gdb.execute("maintenance flush register-cache", to_string=True)
    frame = gdb.newest_frame()
    for register in frame.architecture().registers():
        if register.name:
            frame.read_register(register.name)
