"""A process held by ptrace(2) from here, with no debugger: the core's transaction works on it in milliseconds.

It implements `ipbp.host.inferior.Inferior` as far as a patch from a shell needs it: there are no breakpoints, no
symbols and no selected frame. All calls must come from the thread that attached.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from gdb_ipbp import ptrace
from ipbp.errors import IpbpError
from ipbp.host import procfs, tasks
from ipbp.host.inferior import CALL_SECONDS, Breakpoint, Frame, OldCode, OldText, Ranges, Thread
from ipbp.host.kernel_words import kept_words
from ipbp.protocol import Description, Region

_CONT, _DETACH, _SEIZE, _INTERRUPT = 7, 17, 0x4206, 0x4207  # sys/ptrace.h
_GETFPREGS, _SETFPREGS = 14, 15
_WALL = 0x40000000
_RED_ZONE = 128  # psABI, "The Stack Frame"
_MASK = (1 << 64) - 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


@contextmanager
def traced(pid: int) -> Iterator[TracedInferior]:
    """The process, stopped until the end of the block."""
    inferior = TracedInferior(pid)
    inferior.stop()
    try:
        yield inferior
    finally:
        inferior.let_go()


class TracedInferior:
    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._held: list[int] = []

    def stop(self) -> None:
        """Every thread, also those that come meanwhile."""
        while new := [thread for thread in tasks.live_threads(self._pid) if thread not in self._held]:
            for thread in new:
                _ask(_SEIZE, thread)
                _ask(_INTERRUPT, thread)
                os.waitpid(thread, _WALL)
                self._held.append(thread)

    def let_go(self) -> None:
        for thread in self._held:
            _libc.ptrace(_DETACH, thread, None, None)  # one that has ended needs none
        self._held = []

    def describe(self) -> Description:
        return Description(self._pid, "x86_64-linux", "none", tasks.executable(self._pid), True, True)

    def regions(self) -> list[Region]:
        return procfs.regions(self._pid)

    def threads(self) -> list[Thread]:
        return tasks.stopped_threads(self._pid)

    def return_addresses(self, thread: int) -> list[int]:
        """Every word of the stack that may be one: it points behind a call."""
        executable = [(row.start, row.end) for row in self.regions() if "x" in row.protection]
        pointer = self.registers(thread, ("rsp",))["rsp"]
        region = next((row for row in self.regions() if row.start <= pointer < row.end), None)
        if region is None:
            return []
        stack = self.read(pointer, (region.end - pointer) & ~7)
        words = memoryview(stack).cast("Q")
        return [word for word in words if any(a <= word < b for a, b in executable) and self._is_after_call(word)]

    def read(self, address: int, size: int) -> bytes:
        return procfs.read_memory(self._pid, address, size)

    def write(self, address: int, content: bytes) -> None:
        procfs.write_memory(self._pid, address, content)

    def write_all(self, places: Sequence[tuple[int, bytes]]) -> None:
        procfs.write_places(self._pid, places)

    def registers(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        values = ptrace.read_registers(thread)
        return {name: values[name] for name in names if name in values}

    def set_registers(self, thread: int, values: dict[str, int]) -> None:
        ptrace.write_registers(thread, values)

    def vectors(self, thread: int, names: Iterable[str]) -> dict[str, int]:
        values = ptrace.read_vectors(thread)
        return {name: values[name] for name in names}

    def set_vectors(self, thread: int, values: dict[str, int]) -> None:
        ptrace.write_vectors(thread, values)

    def extended_state(self, thread: int) -> bytes:
        return ptrace.read_extended_state(thread)

    def register_bytes(self, thread: int) -> bytes:
        return ptrace.read_all(thread)

    def step(self, thread: int) -> None:
        ptrace.step(self._pid, thread)

    def interrupted_call(self, thread: int) -> int | None:
        where = procfs.system_call(self._pid, thread)
        return None if where is None else where.number

    def filters_calls(self, thread: int) -> bool:
        return procfs.seccomp_mode(self._pid, thread) == 2

    def blocked_signals(self, thread: int) -> int | None:
        return tasks.blocked_signals(self._pid, thread)

    def kept_words(self, seconds: float) -> list[int] | None:
        return kept_words(self._pid)

    def selected_frame(self) -> Frame:
        raise IpbpError("frame-none", "no frame is selected", "There is no debugger.")

    def forget_signal(self, thread: int) -> None:
        raise IpbpError("frame-none", "no frame is selected", "There is no debugger.")

    def call(self, address: int, arguments: Sequence[int]) -> int:
        """The first thread makes it and comes back to address 0, which faults."""
        thread = self._held[0]
        before = ptrace.read_registers(thread)
        floating = (ctypes.c_uint8 * 512)()
        _ask(_GETFPREGS, thread, floating)
        stack = ((before["rsp"] - _RED_ZONE - 256) & ~15) - 8
        self.write(stack, bytes(8))
        names = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
        passed = {name: argument & _MASK for name, argument in zip(names, arguments, strict=False)}
        start = {"rip": address, "rsp": stack, "rax": 0, "orig_rax": _MASK}
        try:
            ptrace.write_registers(thread, {**passed, **start})
            number = self._run(thread)
            after = ptrace.read_registers(thread)
        finally:
            ptrace.write_registers(thread, before)
            _ask(_SETFPREGS, thread, floating)
        if number != signal.SIGSEGV or after["rip"] != 0:
            fact = f"the call of {address:#x} ended with signal {number} at {after['rip']:#x}"
            raise IpbpError("inferior-call", fact, "Report this as a bug.")
        return after["rax"]

    def disarm(self, ranges: Ranges) -> list[Breakpoint]:
        return []

    def rearm(self, breakpoints: Iterable[Breakpoint]) -> None:
        return

    def retire(self, ranges: Ranges) -> None:
        return

    def mark(self, code: Sequence[OldCode], texts: Sequence[OldText]) -> None:
        return

    def note_mapping(self, region: Region, is_there: bool) -> None:
        return

    def exchange(self, gone: Sequence[str], come: Sequence[str]) -> float:
        return 0.0

    def while_stopped(self, action: Callable[[], None], then: Callable[[float], None]) -> None:
        action()
        then(0.0)

    def _run(self, thread: int) -> int:
        # The signal that it stops with. The signal is gone then: nobody delivers it.
        _ask(_CONT, thread)
        deadline = time.monotonic() + CALL_SECONDS
        while os.waitid(os.P_PID, thread, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL) is None:
            if time.monotonic() > deadline:
                _ask(_INTERRUPT, thread)
            time.sleep(0.0002)
        _, status = os.waitpid(thread, _WALL)
        return os.WSTOPSIG(status)

    def _is_after_call(self, address: int) -> bool:
        try:
            before = self.read(address - 7, 7)
        except IpbpError:
            return False
        return before[2] == 0xE8 or any(before[at] == 0xFF and before[at + 1] >> 3 & 7 == 2 for at in range(6))


def _ask(request: int, thread: int, content: object = None) -> None:
    if _libc.ptrace(request, thread, None, content) != 0:
        fact = f"ptrace request {request:#x} on thread {thread}: {os.strerror(ctypes.get_errno())}"
        raise IpbpError("inferior-ptrace", fact, "Report this as a bug.")
