"""Registers and single steps of a thread that gdb holds, taken from the kernel and past gdb (ptrace(2)).

gdb's own `stepi` is a resumption of the program in all respects: front ends see it run and stop, the user's stop
handlers and `hook-stop` run, breakpoints are hit, their conditions evaluated and their commands carried out. Nor does
gdb wait for it to end when it is given from an event, as we do when the program runs in the background. gdb itself
is the tracer, and we are on the thread of it that traces, so we may ask the kernel the same things. The thread is
stopped before and after: gdb has no event to miss. What gdb has cached of registers must be flushed afterwards.

While a thread steps its signals are blocked, so that none gets in between; what it was stopped by (PTRACE_GETSIGINFO)
is put back, because gdb may still have to deliver it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Optional

from ipbp.errors import IpbpError
from ipbp.host import tasks

_SINGLESTEP, _GETREGS, _SETREGS, _GETFPREGS, _SETFPREGS = 9, 12, 13, 14, 15  # sys/ptrace.h
_GETSIGINFO, _SETSIGINFO, _GETSIGMASK, _SETSIGMASK = 0x4202, 0x4203, 0x420A, 0x420B
_CONT, _GETREGSET, _SETREGSET, _NT_X86_XSTATE = 7, 0x4204, 0x4205, 0x202
_LARGEST_STATE = 1 << 14  # bytes; with AMX it is 11008 (Intel SDM vol. 1, 13)
_WALL = 0x40000000  # wait(2), __WALL: threads, too
_TGKILL = 234  # arch/x86/entry/syscalls/syscall_64.tbl
_PATIENCE = 2.0  # seconds that one instruction may take: it may be a system call

# struct user_regs_struct (sys/user.h), 8 bytes each.
NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
# A fault of the instruction itself must not meet a blocked signal: the kernel would take the program's handler away.
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS)
_ALL_BUT_FAULTS = ((1 << 64) - 1) & ~sum(1 << (number - 1) for number in _FAULTS)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)

_Registers = ctypes.c_uint64 * len(NAMES)
_VectorState = ctypes.c_uint8 * 512


class _Vector(ctypes.Structure):
    """struct iovec (iovec(3type))."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def read_registers(thread: int) -> dict[str, int]:
    """All of `NAMES`."""
    values = _Registers()
    _ptrace(_GETREGS, thread, 0, values)
    return dict(zip(NAMES, values))


def write_registers(thread: int, values: dict[str, int]) -> None:
    """Some of `NAMES`; the others keep their values."""
    _ptrace(_SETREGS, thread, 0, _Registers(*{**read_registers(thread), **values}.values()))


def read_vectors(thread: int) -> dict[str, int]:
    """xmm0..xmm15, which begin 160 bytes into struct user_fpregs_struct (sys/user.h)."""
    content = _VectorState()
    _ptrace(_GETFPREGS, thread, 0, content)
    return {f"xmm{n}": int.from_bytes(content[160 + 16 * n : 176 + 16 * n], "little") for n in range(16)}


def write_vectors(thread: int, values: dict[str, int]) -> None:
    """Some of them; all else of that state keeps its values."""
    content = _VectorState()
    _ptrace(_GETFPREGS, thread, 0, content)
    for name, value in values.items():
        at = 160 + 16 * int(name[len("xmm") :])
        content[at : at + 16] = list(value.to_bytes(16, "little"))
    _ptrace(_SETFPREGS, thread, 0, content)


def read_extended_state(thread: int) -> bytes:
    """All floating-point and vector registers in the form of XSAVE; b"" where the processor has no such thing."""
    content = ctypes.create_string_buffer(_LARGEST_STATE)
    vector = _Vector(ctypes.addressof(content), _LARGEST_STATE)
    if _libc.ptrace(_GETREGSET, thread, _NT_X86_XSTATE, ctypes.byref(vector)) != 0:
        return b""
    return content.raw[: vector.length]


def read_all(thread: int) -> bytes:
    """What all registers hold: the general ones in the order of `NAMES`, then the extended state."""
    general = _Registers()
    _ptrace(_GETREGS, thread, 0, general)
    return bytes(general) + read_extended_state(thread)


def write_extended_state(thread: int, content: bytes) -> None:
    """All of it, as `read_extended_state` gave it."""
    kept = ctypes.create_string_buffer(content, len(content))
    vector = _Vector(ctypes.addressof(kept), len(content))
    _ptrace(_SETREGSET, thread, _NT_X86_XSTATE, ctypes.byref(vector))


def stopped_by(thread: int) -> int:
    """Number of the signal that the thread was stopped by, 0 for none (sigaction(2), si_signo)."""
    found = _read_siginfo(thread)
    return 0 if found is None else int.from_bytes(bytes(found)[:4], "little")


def step(process: int, thread: int) -> None:
    """One instruction. Where it faults the thread is as before: the fault comes again when it goes on.

    Errors: `inferior-step` when the instruction does not end, `inferior-gone`.
    """
    stopped_by = _read_siginfo(thread)
    mask = ctypes.c_uint64()
    _ptrace(_GETSIGMASK, thread, 8, ctypes.byref(mask))
    _ptrace(_SETSIGMASK, thread, 8, ctypes.byref(ctypes.c_uint64(_ALL_BUT_FAULTS)))
    try:
        _go(_SINGLESTEP, process, thread)
        _rest(process, thread)
    finally:
        _ptrace(_SETSIGMASK, thread, 8, ctypes.byref(mask))
        if stopped_by is not None:
            _ptrace(_SETSIGINFO, thread, 0, stopped_by)


def _go(request: int, process: int, thread: int) -> None:
    """Let the thread go on by this request, until it stops."""
    _ptrace(request, thread, 0, None)
    if _wait(process, thread) == signal.SIGSTOP:
        # One that gdb has sent to stop the thread, and that came late. gdb counts on seeing it.
        try:
            _ptrace(request, thread, 0, None)
            _wait(process, thread)
        finally:
            _libc.syscall(_TGKILL, process, thread, int(signal.SIGSTOP))


def _rest(process: int, thread: int) -> None:
    """Have the thread stopped by a signal that does no harm, where it is: were we killed now, the kernel would deliver
    what it is stopped by, and the SIGTRAP of a step would end the program."""
    harmless = _harmless_signal(process, thread)
    mask = ctypes.c_uint64(_ALL_BUT_FAULTS & ~(1 << (harmless - 1)))
    _ptrace(_SETSIGMASK, thread, 8, ctypes.byref(mask))
    _libc.syscall(_TGKILL, process, thread, harmless)
    # It comes before any instruction of the thread's: the kernel is still looking for signals for it.
    _go(_CONT, process, thread)


def _harmless_signal(process: int, thread: int) -> int:
    """One that is ignored by default and best has no handler."""
    caught = int(tasks.status_field(process, thread, "SigCgt"), 16)
    ignored = (signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD)
    return int(next((number for number in ignored if not caught >> (number - 1) & 1), signal.SIGWINCH))


def _wait(process: int, thread: int) -> int:
    # The signal that the thread has stopped with.
    deadline = time.perf_counter() + _PATIENCE
    while True:
        found = os.waitid(os.P_PID, thread, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
        if found is not None and found.si_code in (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED):
            raise _gone(thread)  # for gdb to see: this was only a look at it
        if found is not None:
            _, status = os.waitpid(thread, _WALL)
            return os.WSTOPSIG(status)
        if time.perf_counter() > deadline:
            break
    _libc.syscall(_TGKILL, process, thread, int(signal.SIGSTOP))
    os.waitpid(thread, _WALL)
    raise IpbpError(
        "inferior-step",
        f"thread {thread} did not finish one instruction in {_PATIENCE:.0f} seconds",
        "Continue for a moment and try again.",
    )


def _read_siginfo(thread: int) -> Optional[ctypes.Array[ctypes.c_char]]:
    # None when the thread is in no signal's stop; then there is nothing to be delivered, either.
    siginfo = ctypes.create_string_buffer(128)  # sizeof(siginfo_t)
    if _libc.ptrace(_GETSIGINFO, thread, None, siginfo) != 0:
        return None
    return siginfo


def _ptrace(request: int, thread: int, size: int, content: object) -> None:
    if _libc.ptrace(request, thread, size, content) != 0:
        number = ctypes.get_errno()
        if number == 3:  # ESRCH: it has ended, or it is not stopped
            raise _gone(thread)
        fact = f"the kernel refuses ptrace request {request:#x} on thread {thread}: {os.strerror(number)}"
        raise IpbpError("inferior-ptrace", fact, "Report this as a bug.")


def _gone(thread: int) -> IpbpError:
    return IpbpError("inferior-gone", f"thread {thread} has ended, or it runs", "Start the program again.")
